"""Small runs on the digits, for the tests of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from dlzoo.zoo.train.recipes.recipe import ModelSettings, Recipe
from dlzoo.zoo.train.recipes.recipe_file import recipe_from_toml, recipe_to_toml
from dlzoo.zoo.train.run.checkpoint import read_tensors
from dlzoo.zoo.train.run.run_folder import LAST

#: Networks for the digits as they are, 8 x 8.
NETWORKS = """
import multiprocessing
import os
import signal

from torch import nn


def tiny():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10)
    )


def normalized():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(72, 10),
    )


def without_dropout():
    network = normalized()
    del network[7]
    return network


class DividesByZero(nn.Module):
    def forward(self, x):
        return x / (x - x) if self.training else x


def dividing():
    network = tiny()
    network.insert(2, DividesByZero())
    return network


class RootOfZero(nn.Module):  # a finite output with a gradient that is no number
    def forward(self, x):
        return x + (x * 0).sqrt()


def of_endless_slope():
    network = tiny()
    network.insert(2, RootOfZero())
    return network


class LosesItsWorker(nn.Module):
    def forward(self, x):
        if self.training:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)
                worker.join()
        return x


def losing_its_worker():
    return nn.Sequential(LosesItsWorker(), *tiny())


def wide():
    layers = [nn.Conv2d(1, 256, 1), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv2d(256, 256, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def heavy():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 10))


def any_size():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )


def of_seven_classes():
    network = tiny()
    network[4] = nn.Linear(64, 7)
    return network


def of_one_value():
    return nn.Sequential(nn.Conv2d(1, 8, 8), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 10))
"""


def network_file(folder: Path) -> Path:
    """The file that holds the networks."""
    path = folder / "networks.py"
    path.write_text(NETWORKS)
    return path


def small_recipe(model: str, **changes: Any) -> Recipe:
    """Two epochs of the digits; keys are as ``loop__epochs``."""
    settings = {
        "data.image_size": [8, 8],
        "data.color": "L",
        "loop.epochs": 2,
        "loop.batch_size": 200,
        "optimizer.lr": 0.01,
    }
    settings |= {key.replace("__", "."): value for key, value in changes.items()}
    defaults = recipe_to_toml(Recipe(model=ModelSettings(name=model)))
    return recipe_from_toml(defaults, "a test's recipe", settings)


def tensors_of(path: Path) -> dict[str, Tensor]:
    """What a safetensors file holds."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


#: Figures that depend on the clock.
TIMINGS = ("images_per_second", "waiting_percent", "seconds")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]


def assert_same_run(folder: Path, other: Path) -> None:
    for name in ("best.safetensors", "last.safetensors", "normalization.safetensors"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    assert rows_of(folder) == rows_of(other)
    assert (folder / "test.json").read_text() == (other / "test.json").read_text()
    assert (folder / "run.json").read_text() == (other / "run.json").read_text()


def place_of(folder: Path) -> tuple[int, int] | None:
    """Epoch and batch of the last checkpoint."""
    if not (folder / LAST).is_file():
        return None
    _, facts = read_tensors(folder / LAST)
    return facts["progress"]["epoch"], facts["progress"]["batch"]


def begin(folder: Path, recipe: Recipe) -> None:
    """A run that was killed as soon as it had its folder."""
    folder.mkdir()
    (folder / "recipe.toml").write_text(recipe_to_toml(recipe))
