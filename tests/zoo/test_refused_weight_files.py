"""Files that are no weights, damaged or dangerous: what is wrong is said in one line."""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlzoo.errors import NonFiniteWeightsError, UnsafeCheckpointError, WeightsError
from dlzoo.zoo.state_dict import require_finite_weights
from tests.support.weight_files import WAYS_TO_SAVE, error_of, save, state_dict_of

pytestmark = pytest.mark.usefixtures("one_thread", "empty_cache")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    state_dict = state_dict_of()
    state_dict["c3.weight"][3, 1, 2] = value
    path = save(state_dict, tmp_path / "diverged.pth")
    message = (
        "diverged.pth for lenet5_relu: 5 of 2,400 values of c3.weight are NaN or Inf; expected "
        "finite numbers. Pass weights from before training diverged."
    )
    assert error_of(path) == (NonFiniteWeightsError, message)
    state_dict["f6.bias"][0] = value
    save(state_dict, path)
    several = message.replace("Inf;", "Inf, and 1 more tensors have some;")
    assert error_of(path) == (NonFiniteWeightsError, several)


def test_buffers_are_checked_too() -> None:
    norm = nn.BatchNorm2d(4)
    require_finite_weights(norm, "a norm")
    assert norm.running_var is not None
    norm.running_var[2] = float("nan")
    with pytest.raises(NonFiniteWeightsError, match="a norm: 1 of 4 values of running_var"):
        require_finite_weights(norm, "a norm")


class RunsCode:
    """Pickles to a call that leaves a mark."""

    mark: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("model", "torch.nn.modules.linear.Linear"),
        ("arguments", "argparse.Namespace"),
        ("attack", "posix.mkdir"),
    ],
)
def test_file_that_brings_code(
    tmp_path: Path, content: str, wanted: str, is_zip: bool
) -> None:
    attack = RunsCode()
    RunsCode.mark = tmp_path / "the code ran"
    contents: dict[str, Any] = {
        "model": nn.Linear(2, 2),
        "arguments": {"state_dict": state_dict_of(), "args": argparse.Namespace(lr=0.1)},
        "attack": {**state_dict_of(), "x": attack},
    }
    path = tmp_path / "theirs.pth"
    save(contents[content], path, _use_new_zipfile_serialization=is_zip)
    assert error_of(path) == (
        UnsafeCheckpointError,
        f"theirs.pth can only be read by running code: it asks for {wanted}. It is refused. Load "
        "it where you trust it and save its state_dict() as safetensors.",
    )
    assert not attack.mark.exists()


def test_program(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but its files are there.
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)
    assert error_of(path) == (
        UnsafeCheckpointError,
        "script.pt is a TorchScript archive, which is a program. Load it where you trust it and "
        "save its state_dict() as safetensors.",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "w.pth is empty (0 bytes), expected weights. Fetch it again."),
        (
            b"\n<!DOCTYPE html><html>",
            "w.pth is a web page (HTML), not weights: the download brought an error page. Fetch it "
            "again.",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            'w.pth is a Git LFS pointer, not the weights it stands for. Run "git lfs pull" where it '
            "is.",
        ),
        (
            b"\x89HDF\r\n\x1a\n\0\0",
            "w.pth is neither safetensors nor a PyTorch checkpoint (its first bytes are 89 48 44 46 "
            "0d 0a 1a 0a). Save the model's state_dict() with safetensors or torch.save.",
        ),
        (
            b"\x80\x05}\x94.",
            "w.pth is a pickle, but no checkpoint that torch.save wrote. Save the model's "
            "state_dict() with safetensors or torch.save.",
        ),
    ],
)
def test_file_that_is_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    assert error_of(path) == (WeightsError, message)


@pytest.mark.parametrize("way", ["plain", "before 2020", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9999])
def test_file_that_was_cut_off(tmp_path: Path, way: str, share: float) -> None:
    path = tmp_path / "w.pth"
    WAYS_TO_SAVE[way](state_dict_of(), path)
    os.truncate(path, int(path.stat().st_size * share))
    kind, message = error_of(path)
    assert kind is WeightsError
    assert message.startswith(f"w.pth is cut off or damaged ({path.stat().st_size:,} bytes): ")
    assert message.endswith(". Fetch it again.")


def test_bytes_changed_in_the_middle(tmp_path: Path) -> None:
    path = save(state_dict_of(), tmp_path / "w.pth")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    kind, message = error_of(path)
    assert kind is WeightsError
    assert "the checksum of w/data/" in message


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ({"epoch": 3, "optimizer": {"a": torch.zeros(1)}}, "the keys epoch, optimizer"),
        ({"state_dict": {"lr": 0.1}}, "the keys lr"),
        ({}, "the keys (none)"),
        ([torch.zeros(1)], "list"),
    ],
)
def test_file_without_a_state_dict(tmp_path: Path, content: Any, got: str) -> None:
    assert error_of(save(content, tmp_path / "w.pth")) == (
        WeightsError,
        f"w.pth holds no state dict: got {got}, expected tensors by name, bare or under "
        "state_dict, model_state_dict, model, net. Save the model's state_dict().",
    )


@pytest.mark.parametrize(
    ("tensor", "got"),
    [
        (torch.eye(2).to_sparse(), "torch.float32 torch.sparse_coo on cpu"),
        (torch.zeros(2, dtype=torch.complex64), "torch.complex64 torch.strided on cpu"),
    ],
)
def test_tensor_that_is_no_plain_array(tmp_path: Path, tensor: Tensor, got: str) -> None:
    assert error_of(save({"a": tensor}, tmp_path / "w.pth")) == (
        WeightsError,
        f"w.pth: a is {got}, expected a plain dense tensor of real numbers. Save the unquantized "
        "model's state_dict().",
    )


def test_missing_file_and_folder(tmp_path: Path) -> None:
    advice = "Pass the path of a .safetensors or .pth file."
    assert error_of(tmp_path / "no.pth") == (
        WeightsError,
        f"Cannot read the weights file no.pth: No such file or directory. {advice}",
    )
    assert error_of(tmp_path)[1].endswith(f": Is a directory. {advice}")
