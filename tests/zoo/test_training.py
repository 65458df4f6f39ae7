"""Training from Python: whole runs on the digits."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dlzoo.errors import DlzooError, WeightsError
from dlzoo.zoo.train.loop.reports import EpochReport
from dlzoo.zoo.train.run.run_folder import RunFolder
from dlzoo.zoo.training import Run, train
from tests.support.training_runs import network_file, small_recipe, tensors_of


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
        *(
            "loss.svg",
            "accuracy.svg",
            "samples.png",
            "tensorboard",
            "confusion.csv",
            "classes.csv",
            ".lock",
        ),
    }


def test_the_download_of_starting_weights_is_reported(
    networks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_weights(_model: str, _weights: str, progress: Callable[[int, int], None]) -> None:
        progress(1, 2)
        raise WeightsError("unavailable")

    monkeypatch.setattr("dlzoo.zoo.training.starting_weights", no_weights)
    recipe = small_recipe(f"{networks}:tiny", model__weights="imagenet")
    reports: list[tuple[int, int]] = []
    with pytest.raises(WeightsError):
        train(recipe, tmp_path / "run", on_bytes=lambda *report: reports.append(report))
    assert reports == [(1, 2)]


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


# -- which weights, when to stop ---------------------------------------------------------------


def test_without_validation_the_last_weights_are_the_best(
    networks: str, tmp_path: Path
) -> None:
    result = run(networks, tmp_path / "run", data__validation=0, loop__epochs=3)
    assert result.best_epoch == 3
    assert "validation_loss" not in result.rows[0]
    best = tensors_of(tmp_path / "run" / "best.safetensors")
    last = tensors_of(tmp_path / "run" / "last.safetensors")
    for name, value in best.items():
        assert torch.equal(value, last[f"network/{name}"])


def test_early_stopping_keeps_the_best(networks: str, tmp_path: Path) -> None:
    result = run(
        networks,
        tmp_path / "run",
        loop__epochs=40,
        loop__patience=2,
        loop__batch_size=20,
        optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9},
        schedule={"name": "constant"},
    )
    losses = [row["validation_loss"] for row in result.rows]
    assert len(losses) < 40
    assert result.best_epoch == len(losses) - 2 == 1 + losses.index(min(losses))
    best = tensors_of(tmp_path / "run" / "best.safetensors")
    last = tensors_of(tmp_path / "run" / "last.safetensors")
    assert not torch.equal(best["0.weight"], last["network/0.weight"])
    # One that is over is over: going on changes nothing.
    again = train(RunFolder.open(tmp_path / "run").recipe, tmp_path / "run", resume=True)
    assert again.rows == result.rows


def test_the_best_is_the_average_of_the_weights(networks: str, tmp_path: Path) -> None:
    run(networks, tmp_path / "run", weight_average={"decay": 0.9}, loop__epochs=1)
    best = tensors_of(tmp_path / "run" / "best.safetensors")
    last = tensors_of(tmp_path / "run" / "last.safetensors")
    for name, value in best.items():
        assert torch.equal(value, last[f"average/{name}"])
        assert not torch.equal(value, last[f"network/{name}"])


# -- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"loop__batch_size": 200}, 7),
        ({"loop__batch_size": 200, "loop__drop_last": True}, 6),
        ({"loop__batch_size": 5000}, 1),
        ({"loop__batch_size": 5000, "loop__drop_last": True}, 1),
        ({"loop__batch_size": 1}, 1293),
    ],
)
def test_steps_of_an_epoch(
    networks: str, tmp_path: Path, changes: dict[str, Any], steps: int
) -> None:
    result = run(networks, tmp_path / "run", loop__epochs=1, **changes)
    assert result.rows[0]["step"] == steps


def test_full_batch_descent_is_the_same_in_parts(networks: str, tmp_path: Path) -> None:
    common = {"loop__batch_size": 5000, "loop__precision": "64-true", "loop__epochs": 3}
    whole = run(networks, tmp_path / "whole", **common)
    parts = run(networks, tmp_path / "parts", **common, loop__micro_batches=7)
    for a, b in zip(whole.rows, parts.rows, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-6)


# -- what cannot be trained ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        ("of_seven_classes", {}, "gives 7 scores, and the data have 10 classes"),
        ("nothing_like_it", {}, "has nothing named 'nothing_like_it'"),
        ("tiny", {"data__image_size": [20, 20]}, "mat1 and mat2 shapes cannot be multiplied"),
        ("tiny", {"model__arguments": {"depth": 3}}, "which only models of the zoo take"),
        ("tiny", {"model__weights": "nowhere.safetensors"}, "nowhere.safetensors"),
        ("tiny", {"data__name": "no-such-data"}, "No data set is named 'no-such-data'"),
        ("tiny", {"transfer__freeze": ["9"]}, "`freeze` got '9'"),
        ("tiny", {"transfer__freeze": ["*"]}, "got no parameters to train"),
        ("tiny", {"normalization": {"name": "card"}}, "this one has no card"),
        ("tiny", {"augmentation": [{"name": "hue-saturation"}]}, "hue-saturation"),
    ],
)
def test_nothing_is_left_of_a_run_that_cannot_begin(
    networks: str, tmp_path: Path, network: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DlzooError, match=message) as caught:
        run(networks, tmp_path / "made" / "run", network, **changes)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_taken(networks: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(DlzooError, match="is not empty"):
        run(networks, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(DlzooError, match="exists and is not empty"):
        run(networks, tmp_path / "mine.txt")
    with pytest.raises(DlzooError, match="is not a folder"):
        run(networks, tmp_path / "mine.txt" / "run")


def test_one_value_for_each_channel(networks: str, tmp_path: Path) -> None:
    with pytest.raises(DlzooError, match=r"Epoch 1, step 5 .*drop_last` to true") as caught:
        run(networks, tmp_path / "run", "of_one_value", loop__batch_size=323)
    assert caught.value.exit_code == 1
    result = run(
        networks,
        tmp_path / "again",
        "of_one_value",
        loop__batch_size=323,
        loop__drop_last=True,
    )
    assert result.rows[-1]["step"] == 8


# -- numbers that are none ------------------------------------------------------------------------


def test_a_loss_that_is_no_number(networks: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    changes = {"optimizer": {"name": "sgd", "lr": 1e38}, "loop__checkpoint_minutes": 1e-9}
    with pytest.raises(DlzooError, match=r"Epoch 1, step \d+ \(batch \d of 7\)") as caught:
        run(networks, folder, **changes)
    assert "NaN or Inf" in str(caught.value)
    assert caught.value.exit_code == 1
    for path in folder.glob("*.safetensors"):
        for name, value in tensors_of(path).items():
            assert bool(torch.isfinite(value).all()), (path, name)
    # Gone on with, it ends at the same place again.
    with pytest.raises(DlzooError, match=re.escape(str(caught.value))):
        train(small_recipe(f"{networks}:tiny", **changes), folder, resume=True)


def test_nan_weights_after_the_last_step_are_not_kept(networks: str, tmp_path: Path) -> None:
    """Where the epoch's last step ruins the weights, no loss can tell before they are written."""
    folder = tmp_path / "run"
    changes = {"loop__batch_size": 5000, "data__validation": 0}
    with pytest.raises(DlzooError, match=r"step 1 .* are NaN or Inf after this step"):
        run(networks, folder, "of_endless_slope", **changes)
    assert not (folder / "last.safetensors").exists()
    assert not (folder / "best.safetensors").exists()


def test_a_layer_that_divides_by_zero_is_named(networks: str, tmp_path: Path) -> None:
    with pytest.raises(
        DlzooError, match=r"the first layer with NaN or Inf is 2 \(DividesByZero\)"
    ):
        run(networks, tmp_path / "run", "dividing")


# -- what a run's folder says --------------------------------------------------------------------


def test_metrics_are_the_same_in_both_files(networks: str, tmp_path: Path) -> None:
    result = run(networks, tmp_path / "run", loop__clip_norm=1.0)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.rows
    with (tmp_path / "run" / "metrics.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [float(row["gradient_norm"]) for row in table] == [
        row["gradient_norm"] for row in result.rows
    ]


def test_reports_end_with_the_rows(networks: str, tmp_path: Path) -> None:
    reports: list[Any] = []
    recipe = small_recipe(f"{networks}:tiny")
    result = train(recipe, tmp_path / "run", on_report=reports.append)
    rows = [report.row for report in reports if isinstance(report, EpochReport)]
    assert rows == result.rows


def test_a_folder_of_training_images_alone(networks: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in range(10):
        place = tmp_path / "photos" / "train" / f"class{label}"
        place.mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
    (place / "broken.png").write_bytes(b"\x89PNG")
    data = {"data__name": str(tmp_path / "photos"), "data__validation": 0.3}
    with pytest.raises(DlzooError, match=r"broken\.png"):
        run(networks, tmp_path / "refused", **{**data, "data__validation": 0})
    assert not (tmp_path / "refused").exists()
    notes: list[str] = []
    recipe = small_recipe(f"{networks}:tiny", **data, data__on_corrupt="skip")
    result = train(recipe, tmp_path / "run", on_note=notes.append)
    assert result.test is None
    assert any("broken.png" in note for note in notes)


def test_a_folder_with_images_to_validate_with(networks: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3), ("test", 2)):
        for label in range(10):
            place = tmp_path / "photos" / part / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    result = run(networks, tmp_path / "run", data__name=str(tmp_path / "photos"))
    data = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    counts = {part: facts["num_images"] for part, facts in data.items()}
    # Nothing of the training images is held back.
    assert counts == {"train": 60, "validation": 30, "test": 20}
    assert result.rows[0]["validation_loss"] is not None
