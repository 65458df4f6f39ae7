"""Training from Python: whole runs on the digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import network_file, small_recipe

from dlzoo.training import Run, train


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(network_file(tmp_path_factory.mktemp("networks")))


def run(networks: str, folder: Path, network: str = "tiny", **changes: Any) -> Run:
    return train(small_recipe(f"{networks}:{network}", **changes), folder)


def test_a_run_learns_and_says_so(networks: str, tmp_path: Path) -> None:
    result = run(networks, tmp_path / "run", loop__epochs=4)
    assert result.test is not None
    assert result.test["top1_percent"] > 70
    losses = [row["validation_loss"] for row in result.rows]
    assert result.best_epoch == 1 + losses.index(min(losses))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("recipe.toml", "run.json", "best.safetensors", "last.safetensors"),
        *("normalization.safetensors", "metrics.jsonl", "metrics.csv", "test.json"),
        *("loss.svg", "accuracy.svg", "samples.png", "confusion.csv", "classes.csv", ".lock"),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"loop__precision": "64-true"},
        {"loop__precision": "bf16-mixed"},
        {"loop__channels_last": True},
        {"loop__batch_size": 10**6},
        {"weight_average": {"decay": 0.9}},
    ],
    ids=lambda changes: ",".join(f"{k}={v}" for k, v in changes.items()),
)
def test_ways_to_train(networks: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    result = run(networks, tmp_path / "run", "normalized", **{"loop__epochs": 3, **changes})
    losses = [row["train_loss"] for row in result.rows]
    assert losses[-1] < losses[0]
    assert result.test is not None
