"""Runs that begin with weights of another one: what is frozen stays, bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dlzoo.errors import DlzooError
from dlzoo.zoo.train.run.checkpoint import read_tensors
from dlzoo.zoo.train.run.run_folder import RunFolder
from dlzoo.zoo.training import train
from tests.support.training_runs import network_file, small_recipe, tensors_of

HEAD = ("8.weight", "8.bias")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, and weights for seven classes."""
    place = tmp_path_factory.mktemp("transfer")
    network_file(place)
    train(small_recipe(f"{place}/networks.py:normalized"), place / "first")
    weights = tensors_of(place / "first" / "best.safetensors")
    weights |= {name: weights[name][:7].clone() for name in HEAD}
    save_file(weights, place / "seven.safetensors")
    return place


def test_what_is_frozen_stays(folder: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    recipe = small_recipe(
        f"{folder}/networks.py:normalized",
        model__weights=str(folder / "seven.safetensors"),
        transfer={"freeze": ["0", "1"], "layer_lr_decay": 0.5},
        optimizer={"name": "sgd", "lr": 0.01, "momentum": 0.0},
        loop__batch_size=5000,
        loop__epochs=1,
        schedule={"name": "constant"},
    )
    train(recipe, tmp_path / "run", on_note=notes.append)
    assert "seven.safetensors: 8.weight, 8.bias get new random values." in notes
    before = tensors_of(folder / "seven.safetensors")
    after = tensors_of(tmp_path / "run" / "best.safetensors")
    for name, value in after.items():
        is_frozen = name.startswith(("0.", "1."))  # running statistics and their count, too
        if name not in (*HEAD, "3.bias"):  # a normalization takes that bias away again
            assert torch.equal(value, before[name]) == is_frozen, name
    _, facts = read_tensors(tmp_path / "run" / "last.safetensors")
    assert {group["lr"] for group in facts["optimizer"]["groups"]} == {0.01, 0.005}


def test_goes_on_where_the_first_weights_are_gone(folder: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes((folder / "seven.safetensors").read_bytes())
    recipe = small_recipe(
        f"{folder}/networks.py:normalized", model__weights=str(weights), loop__epochs=1
    )
    train(recipe, tmp_path / "run")
    weights.unlink()
    run = RunFolder.open(tmp_path / "run")
    assert train(run.recipe, run.path, resume=True).rows
    with pytest.raises(DlzooError, match=r"weights\.safetensors"):
        train(recipe, tmp_path / "again")


def test_weights_of_another_network(folder: Path, tmp_path: Path) -> None:
    recipe = small_recipe(
        f"{folder}/networks.py:tiny", model__weights=str(folder / "seven.safetensors")
    )
    with pytest.raises(DlzooError, match=r"seven\.safetensors: does not fit"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
