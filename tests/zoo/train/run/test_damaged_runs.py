"""A run's folder with a file that is truncated, empty or another run's: one line, no traceback."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlzoo.errors import ArgumentError, CheckpointError, DlzooError
from dlzoo.zoo.sources.load import load_source
from dlzoo.zoo.train.run.checkpoint import read_tensors, write_tensors
from dlzoo.zoo.train.run.history import History
from dlzoo.zoo.train.run.run_folder import RunFolder
from dlzoo.zoo.training import train
from tests.support.training_runs import network_file, small_recipe


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs with other numbers, and one of another network."""
    folder = tmp_path_factory.mktemp("runs")
    networks = network_file(folder)
    train(small_recipe(f"{networks}:tiny"), folder / "run")
    train(small_recipe(f"{networks}:tiny", optimizer__lr=0.02), folder / "other")
    train(small_recipe(f"{networks}:normalized"), folder / "network")
    return folder


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    shutil.copytree(runs / "run", tmp_path / "run")
    return tmp_path / "run"


def resume(folder: Path) -> None:
    train(RunFolder.open(folder).recipe, folder, resume=True)


def export(folder: Path) -> None:
    load_source(str(folder))


DAMAGES: dict[str, Callable[[bytes, Path], bytes]] = {
    "empty": lambda _content, _trap: b"",
    # Cut within a line, since the first half of a TOML file may be a whole one.
    "truncated": lambda content, _trap: content[: len(content) // 2].rpartition(b" ")[0],
    "binary": lambda _content, _trap: b"\xff\xfe\x00" * 40,
    "list": lambda _content, _trap: b"[]",
    "object": lambda _content, _trap: b"{}",
    "pickle": lambda _content, trap: pickle.dumps(Trap(trap)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_line(run: Path, tmp_path: Path, damage: str) -> None:
    for name in (
        *("recipe.toml", "run.json", "last.safetensors", "best.safetensors"),
        *("metrics.jsonl", "normalization.safetensors", "test.json"),
    ):
        sound = (run / name).read_bytes()
        (run / name).write_bytes(DAMAGES[damage](sound, tmp_path / "sprung"))
        told = []
        for use in (resume, export):
            try:
                use(run)
            except DlzooError as error:
                assert "\n" not in str(error), (name, error)
                assert name in str(error), (name, error)
                told.append(use.__name__)
        (run / name).write_bytes(sound)
        needed = {
            "recipe.toml": ["resume", "export"],
            "run.json": ["resume", "export"],
            "last.safetensors": ["resume"],
            "best.safetensors": ["resume", "export"],
            "metrics.jsonl": ["resume"],
            "normalization.safetensors": ["export"],
        }
        if name in needed:
            assert told == needed[name], (name, told)
    assert not (tmp_path / "sprung").exists()
    resume(run)  # whole again


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("other", r"belongs to a run with optimizer\.lr = 0\.02, expected 0\.01"),
        (
            "network",
            r"belongs to a run with model\.name = '.*:normalized', expected '.*:tiny'",
        ),
    ],
)
def test_a_checkpoint_of_another_run(runs: Path, run: Path, source: str, message: str) -> None:
    shutil.copy(runs / source / "last.safetensors", run)
    with pytest.raises(CheckpointError, match=message):
        resume(run)


def test_best_weights_of_another_run(runs: Path, run: Path) -> None:
    shutil.copy(runs / "network" / "best.safetensors", run)
    for use in (resume, export):
        with pytest.raises(DlzooError, match=r"best\.safetensors: does not fit"):
            use(run)


def test_a_checkpoint_with_a_part_missing(run: Path) -> None:
    tensors, facts = read_tensors(run / "last.safetensors")
    del facts["format"]
    for name in [*facts, *tensors]:
        some = {key: value for key, value in tensors.items() if key != name}
        rest = {key: value for key, value in facts.items() if key != name}
        write_tensors(run / "last.safetensors", some, rest)
        if name in ("scaler", "format") or name == "random.0/cuda":
            continue
        try:
            resume(run)
        except DlzooError as error:
            assert "last.safetensors" in str(error), (name, error)
        else:
            # What an optimizer keeps of a weight it makes anew where it is not there.
            assert name.startswith("optimizer/"), name


def test_a_recipe_that_was_changed(run: Path) -> None:
    text = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(text.replace("epochs = 2", "epochs = 3"))
    with pytest.raises(CheckpointError, match=r"loop\.epochs = 2, expected 3"):
        resume(run)
    (run / "recipe.toml").write_text(text.replace("epochs = 2", "epochs = 0"))
    with pytest.raises(DlzooError, match=r"recipe\.toml, line \d+: loop\.epochs"):
        resume(run)
    # Where and how this machine reads and writes changes no bit.
    (run / "recipe.toml").write_text(
        text.replace("checkpoint_minutes = 10.0", "checkpoint_minutes = 1.0")
    )
    resume(run)


def test_nothing_to_go_on_with(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ArgumentError, match="is not a training run"):
            RunFolder.open(place)


def test_a_run_without_best_weights(run: Path) -> None:
    (run / "best.safetensors").unlink()
    with pytest.raises(CheckpointError, match="its first epoch is not done"):
        export(run)


def test_rows_that_came_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.add({"epoch": 1, "train_loss": float("nan")})
    history.add({"epoch": 2, "train_loss": 0.5, "extra": 1})
    again = History(tmp_path, num_rows=1)
    assert again.rows == [{"epoch": 1, "train_loss": None}]
    again.add({"epoch": 2, "train_loss": 0.25})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["train_loss"] for line in lines] == [None, 0.25]
    assert (tmp_path / "metrics.csv").read_bytes() == b"epoch,train_loss\n1,\n2,0.25\n"
    with pytest.raises(CheckpointError, match="has 2 rows, expected 5, one per epoch"):
        History(tmp_path, num_rows=5)


def test_one_process_at_a_time(run: Path) -> None:
    with (
        RunFolder(run).locked(),
        pytest.raises(ArgumentError, match="Another process is training"),
    ):
        resume(run)
