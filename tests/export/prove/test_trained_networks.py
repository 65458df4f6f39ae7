"""Networks that were trained, as people have them, export and pass.

Trained weights differ from drawn ones: biases below the roundoff of what they are added to, units
that never fire, channels of zeros, and scores so sure that a softmax of them is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.utils import prune

import dlzoo
from dlzoo.export.plan.options import ExportOptions
from dlzoo.export.prove.proof import export_and_report
from dlzoo.runtime.proof.report import Report
from dlzoo.zoo.train.recipes.recipe import ModelSettings, Recipe
from dlzoo.zoo.train.recipes.recipe_file import recipe_from_toml, recipe_to_toml
from dlzoo.zoo.training import Run, train

SMALL_VGG = """
from torch import nn


def small_vgg():
    layers, num_in = [], 1
    for width in (16, 32, 64):
        for _ in range(2):
            layers += [
                nn.Conv2d(num_in, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            num_in = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Linear(64, 128), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(128, 10)]
    return nn.Sequential(*layers, nn.Flatten(), *head)
"""
DIGIT = {"data.image_size": [8, 8], "data.color": "L"}
#: Model -> what differs from the shipped defaults: a size, and as many epochs as it needs.
TRAINED: dict[str, dict[str, Any]] = {
    "small_vgg": DIGIT,
    "resnet20": {"loop.epochs": 8},
    "resnet18": {"data.image_size": [32, 32], "loop.epochs": 5},
}


def run_of(model: str, folder: Path, seed: int, **changes: Any) -> Run:
    """Train by the shipped defaults but for the changes."""
    name = model
    if model == "small_vgg":
        (folder / "vgg.py").write_text(SMALL_VGG)
        name = f"{folder}/vgg.py:small_vgg"
    defaults = recipe_to_toml(Recipe(model=ModelSettings(name=name)))
    settings = {**TRAINED.get(model, {}), "loop.seed": seed, **changes}
    return train(recipe_from_toml(defaults, "a test's recipe", settings), folder / "run")


def passed(report: Report) -> None:
    assert report.verdict == "pass", report.explanation
    assert max(result.rho2 or 0.0 for result in report.candidates) < 2
    power = report.power
    assert power is not None and power.is_sufficient
    assert not power.missed
    changes = sorted(power.smallest_changes.values())
    assert changes[len(changes) // 2] < 1e-3


def test_a_small_vgg_of_the_shipped_defaults_passes(tmp_path: Path) -> None:
    run = run_of("small_vgg", tmp_path, 0, **{"loop.epochs": 6})
    assert run.test is not None and run.test["top1_percent"] > 90
    _, report = export_and_report(str(run.folder))
    passed(report)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("model", TRAINED)
def test_networks_of_the_shipped_defaults_pass(model: str, seed: int, tmp_path: Path) -> None:
    run = run_of(model, tmp_path, seed)
    assert run.test is not None and run.test["top1_percent"] > 90
    _, report = export_and_report(str(run.folder))
    passed(report)


def cut_photos(photos: Path, folder: Path) -> None:
    """Crops of three photos as three classes, every fourth of them for the test."""
    for file, label in (
        ("chelsea.png", "cat"),
        ("coffee.png", "cup"),
        ("rocket.jpg", "rocket"),
    ):
        image = Image.open(photos / file).convert("RGB")
        corners = [
            (x, y)
            for y in range(0, image.height - 160, 40)
            for x in range(0, image.width - 160, 40)
        ]
        for number, (x, y) in enumerate(corners):
            place = folder / ("train" if number % 4 else "test") / label
            place.mkdir(parents=True, exist_ok=True)
            image.crop((x, y, x + 160, y + 160)).save(place / f"{number}.png")


@pytest.mark.slow
def test_transferred_weights_pass(
    tmp_path: Path, photo_folder: Path, mobilenet_weights: Path
) -> None:
    cut_photos(photo_folder, tmp_path / "photos")
    run = run_of(
        "mobilenet_v2",
        tmp_path,
        0,
        **{
            "data.name": str(tmp_path / "photos"),
            "data.image_size": [96, 96],
            "model.weights": str(mobilenet_weights),
            "loop.epochs": 5,
        },
    )
    assert run.test is not None and run.test["top1_percent"] > 90
    _, report = export_and_report(str(run.folder))
    passed(report)


def small_cnn() -> nn.Sequential:
    """A digit's 8 x 8 pixels to 10 scores."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def fit(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    label_smoothing: float = 0.0,
    l1: float = 0.0,
) -> None:
    """A plain loop over the digits."""
    digits = load_digits()
    images = torch.from_numpy(digits.images.astype(np.float32) / 16)[:, None]
    labels = torch.from_numpy(digits.target)
    generator = torch.Generator().manual_seed(0)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(1400, generator=generator).split(100):
            scores = network(images[batch])
            loss = F.cross_entropy(scores, labels[batch], label_smoothing=label_smoothing)
            if l1:
                loss = loss + l1 * sum(p.abs().sum() for p in network.parameters())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        accuracy = (network(images[1400:]).argmax(1) == labels[1400:]).float().mean()
    assert accuracy > 0.9


def fitted(epochs: int = 20, **options: float) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = small_cnn()
        adam = torch.optim.Adam(network.parameters(), 3e-3)
        fit(network, adam, epochs=epochs, **options)  # type: ignore[arg-type]
    return network


def with_decay_of_sgd() -> nn.Module:
    torch.manual_seed(0)
    network = small_cnn()
    sgd = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    fit(network, sgd, epochs=60)
    return network


def with_decay_of_adam() -> nn.Module:
    torch.manual_seed(0)
    network = small_cnn()
    fit(network, torch.optim.Adam(network.parameters(), 1e-3, weight_decay=0.1), epochs=40)
    return network


def sparse_by_l1() -> nn.Module:
    return fitted(40, l1=1e-3)


def pruned() -> nn.Module:
    network = fitted()
    for layer in network:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            prune.l1_unstructured(layer, "weight", 0.9)
            prune.remove(layer, "weight")
    return network


def with_channels_of_zeros() -> nn.Module:
    network = fitted()
    with torch.no_grad():
        for i, kept in ((0, 4), (4, 4)):
            for tensor in (*network[i].parameters(), *network[i + 1].parameters()):
                tensor[kept:] = 0
    return network


def with_units_that_never_fire() -> nn.Module:
    network = fitted()
    with torch.no_grad():
        network[9].bias[:56] = -1e4
    return network


def smoothed() -> nn.Module:
    return fitted(label_smoothing=0.1)


class Residual(nn.Module):
    """Blocks whose last normalization begins at zero, as ``zero_init_residual`` has it."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
                *(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)),
            )
            for _ in range(num_blocks)
        )
        for block in self.blocks:
            nn.init.zeros_(block[-1].weight)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(x + block(x))
        y: Tensor = self.head(x.mean((2, 3)))
        return y


def untrained_with_zero_residuals() -> nn.Module:
    torch.manual_seed(0)
    return Residual(4).eval()


def with_tiny_biases() -> nn.Module:
    network = fitted()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(torch.randn_like(parameter) * 1e-7)
    return network


def frozen() -> nn.Module:
    return fitted().requires_grad_(False)


ORDINARY: dict[str, Callable[[], nn.Module]] = {
    function.__name__: function
    for function in (
        *(with_decay_of_sgd, with_decay_of_adam, sparse_by_l1, pruned, smoothed, frozen),
        *(with_channels_of_zeros, with_units_that_never_fire, with_tiny_biases),
        untrained_with_zero_residuals,
    )
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDINARY)
def test_weights_as_people_have_them_pass(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        network = ORDINARY[name]()
    _, report = export_and_report(network, tmp_path / "bundle", input_shape=(1, 8, 8))
    assert report.verdict == "pass", report.explanation


@pytest.mark.parametrize("head", ["softmax", pytest.param("sigmoid", marks=pytest.mark.slow)])
def test_a_head_that_is_too_sure_is_proved(head: Any, tmp_path: Path) -> None:
    """Scores in the hundreds at N(0, 1): probabilities of 0 and 1, which hide every weight."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, 10)
        )
    with torch.no_grad():
        network[-1].weight *= 2000
    _, report = export_and_report(
        network,
        tmp_path / "bundle",
        input_shape=(1, 8, 8),
        options=ExportOptions(head=head),
    )
    assert report.verdict == "pass", report.explanation
    assert report.power is not None and not report.power.missed
    assert dlzoo.verify(tmp_path / "bundle").verdict == "pass"
