"""Two gloo processes compute what one does; torchrun starts them once for all tests here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlzoo.zoo.train.recipes.recipe import Recipe
from dlzoo.zoo.train.recipes.recipe_file import recipe_to_toml
from dlzoo.zoo.training import train
from tests.support.training_runs import network_file, small_recipe, tensors_of

#: 1293 images in batches of 323: the last one has a single image, and one process has none.
LAST_OF_ONE = 323
SCRIPT = Path(__file__).with_name("two_processes.py")


def recipes(networks: Path) -> dict[str, Recipe]:
    normalized = f"{networks}:without_dropout"
    common: dict[str, Any] = {
        "loop__batch_size": LAST_OF_ONE,
        "optimizer": {"name": "sgd", "lr": 0.05},
        "penalty": [{"name": "l2", "strength": 0.01}],
        "loop__clip_norm": 1.0,
        "weight_average": {"decay": 0.9},
        "augmentation": [{"name": "mixup", "alpha": 0.3}],
    }
    return {
        "joined": small_recipe(normalized, **common, loop__precision="64-true"),
        "shared": small_recipe(
            f"{networks}:normalized",
            **common,
            loop__micro_batches=2,
            loop__checkpoint_minutes=1e-6,
        ),
        "apart": small_recipe(
            f"{networks}:normalized",
            loop__batch_size=200,
            loop__synchronize_batch_norm=False,
            loop__checkpoint_minutes=1e-6,
        ),
        "diverging": small_recipe(
            f"{networks}:normalized", optimizer={"name": "sgd", "lr": 1e38}
        ),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("processes")
    for name, recipe in recipes(network_file(place)).items():
        (place / f"{name}.toml").write_text(recipe_to_toml(recipe))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", str(SCRIPT), str(place)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[4]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return place


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    both: list[dict[str, Any]] = json.loads((folder / "found.json").read_text())
    return both


def test_batch_norm_is_that_of_the_joined_batch(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert len(each["batch_norm"]) > 40
        worst = max(each["batch_norm"].items(), key=lambda item: item[1])
        # Values around 100 with a deviation of 3, in float64.
        assert worst[1] < 1e-12, worst


def test_one_value_for_each_channel_is_refused(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert "Expected more than 1 value per channel" in each["one_value"]
        assert 0 < each["half"] < 0.02  # bfloat16 has 8 bits, and outputs reach 4


def test_two_processes_end_with_the_weights_of_one(folder: Path) -> None:
    train(recipes(folder / "networks.py")["joined"], folder / "alone")
    one, two = (tensors_of(folder / name / "best.safetensors") for name in ("alone", "joined"))
    assert one.keys() == two.keys()
    worst = max(
        float((one[key].double() - two[key].double()).abs().max() / one[key].abs().max())
        for key in one
    )
    # 6e-15 was measured; the loss takes the outputs rounded to float32, which could differ once.
    assert worst < 1e-8
    rows = [
        [
            json.loads(line)
            for line in (folder / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("alone", "joined")
    ]
    for a, b in zip(*rows, strict=True):
        assert a["train_top1_percent"] == b["train_top1_percent"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-6)
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=1e-5)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-5)


@pytest.mark.parametrize("name", ["shared", "apart"])
def test_resumed_in_two_processes_to_the_bit(folder: Path, name: str) -> None:
    for file in ("best.safetensors", "last.safetensors"):
        whole, stopped = (folder / f"{name}{end}" / file for end in ("", "-stopped"))
        assert whole.read_bytes() == stopped.read_bytes(), file
    rows = [rows_of(folder / f"{name}{end}") for end in ("", "-stopped")]
    for row in (*rows[0], *rows[1]):
        for timing in ("images_per_second", "waiting_percent", "seconds"):
            del row[timing]
    assert rows[0] == rows[1]
    facts = json.loads((folder / name / "run.json").read_text())
    assert facts["num_processes"] == 2


def test_only_the_first_process_writes(found: list[dict[str, Any]]) -> None:
    assert len(found[0]["written"]) > 20
    assert not found[1]["written"]


def test_divergence_is_told_by_each(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each["diverging"].startswith("Epoch 1, step 2 (batch 2 of 7): the loss is")
        assert "are NaN or Inf since an earlier step" in each["diverging"]
