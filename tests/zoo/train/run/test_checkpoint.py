"""Checkpoints: whole or not there, never a pickle, and everything in them comes back."""

from __future__ import annotations

import copy
import json
import pickle
import random
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dlzoo.errors import CheckpointError, StorageError
from dlzoo.zoo.parameter_groups import parameter_groups
from dlzoo.zoo.train.optimize.optimizers import Optimizer
from dlzoo.zoo.train.run.checkpoint import (
    load_optimizer,
    optimizer_tensors,
    random_state,
    read_tensors,
    replaced_file,
    restore_random_state,
    seed_random_streams,
    write_tensors,
)

KINDS = get_args(get_args(Optimizer)[0])


def test_tensors_and_facts_come_back(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"strided": whole.t(), "shared": whole, "count": torch.tensor(3)}
    write_tensors(tmp_path / "a", tensors, {"x": [1, None, 0.1], "y": {"z": "é"}})
    got, facts = read_tensors(tmp_path / "a")
    assert got.keys() == tensors.keys()
    assert all(torch.equal(got[name], tensors[name]) for name in tensors)
    assert facts == {"format": 1, "x": [1, None, 0.1], "y": {"z": "é"}}
    write_tensors(
        tmp_path / "b", dict(reversed(tensors.items())), {"y": {"z": "é"}, "x": [1, None, 0.1]}
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# -- writing -----------------------------------------------------------------------------------------


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), replaced_file(path) as part:
        part.write_text("half of it")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_others_may_read_what_they_could(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_tensors(tmp_path / "weights", {"a": torch.zeros(2)}, {})
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"Cannot write a in .*No such file or directory"):
        write_tensors(tmp_path / "none" / "a", {"a": torch.zeros(2)}, {})


# -- damaged files ----------------------------------------------------------------------------------


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def damaged(folder: Path) -> dict[str, bytes]:
    write_tensors(folder / "sound", {"a": torch.zeros(64)}, {})
    sound = (folder / "sound").read_bytes()
    save_file({"a": torch.zeros(2)}, folder / "foreign")
    save_file({"a": torch.zeros(2)}, folder / "garbled", {"dlzoo": "{"})
    save_file({"a": torch.zeros(2)}, folder / "later", {"dlzoo": json.dumps({"format": 99})})
    torch.save(Trap(folder / "sprung"), folder / "torch")
    files = {
        name: (folder / name).read_bytes() for name in ("foreign", "garbled", "later", "torch")
    }
    return files | {
        "empty": b"",
        "truncated": sound[:-1],
        "header": sound[:20],
        "pickle": pickle.dumps(Trap(folder / "sprung")),
        "text": b"<html>not found</html>",
        "huge": b"\xff" * 64,
    }


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    for name, content in damaged(tmp_path).items():
        path = tmp_path / "last.safetensors"
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value), name
        assert str(path) in str(caught.value), name
        assert caught.value.exit_code == 2
    assert not (tmp_path / "sprung").exists()
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_tensors(path)


# -- optimizers ----------------------------------------------------------------------------------------


def taught(network: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        images = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_optimizer_goes_on_to_the_bit(kind: type[Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = kind()
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    network[0].bias.requires_grad_(False)
    optimizer = settings.build(parameter_groups(network))
    taught(network, optimizer, range(3))
    tensors, rest = optimizer_tensors(optimizer)
    write_tensors(tmp_path / "state", tensors, {"optimizer": rest})
    other = copy.deepcopy(network)
    taught(network, optimizer, range(3, 6))
    got, facts = read_tensors(tmp_path / "state")
    again = settings.build(parameter_groups(other))
    load_optimizer(again, got, facts["optimizer"])
    taught(other, again, range(3, 6))
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    ends = [optimizer_tensors(one) for one in (optimizer, again)]
    assert ends[0][0].keys() == ends[1][0].keys()
    assert all(torch.equal(ends[0][0][key], ends[1][0][key]) for key in ends[0][0])
    assert json.dumps(ends[0][1], sort_keys=True) == json.dumps(ends[1][1], sort_keys=True)


# -- random streams ------------------------------------------------------------------------------------


def draws() -> list[Any]:
    numbers = np.random.normal(size=3).tolist()  # noqa: NPY002
    return [torch.randn(3).tolist(), numbers, random.random(), random.gauss(0, 1)]


def test_random_streams_go_on(tmp_path: Path) -> None:
    seed_random_streams(5)
    first = draws()
    tensors, rest = random_state()
    expected = draws()
    assert first != expected
    write_tensors(tmp_path / "state", tensors, {"random": rest})
    got, facts = read_tensors(tmp_path / "state")
    seed_random_streams(2**40)
    restore_random_state(got, facts["random"])
    assert draws() == expected
