"""Weights of a file: read as they were saved, whatever way, and fitted to their network."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlzoo.errors import CheckpointMismatchError
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.state_dict import copy_state_dict, sha256_of_state_dict
from dlzoo.zoo.state_dict_file import load_state_dict_file
from dlzoo.zoo.weights import WeightsOrigin, build_with_weights
from tests.support.weight_files import (
    LENET,
    WAYS_TO_SAVE,
    assert_equal,
    error_of,
    save,
    small,
    state_dict_of,
)

pytestmark = pytest.mark.usefixtures("one_thread", "empty_cache")


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS_TO_SAVE)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_file_gives_the_weights_that_were_saved(tmp_path: Path, way: str, suffix: str) -> None:
    saved = state_dict_of()
    path = tmp_path / f"mine{suffix}"
    WAYS_TO_SAVE[way](saved, path)
    model = build_with_weights(LENET, weights=path)
    # The network owns its weights: the file may change afterwards.
    path.write_bytes(bytes(path.stat().st_size))
    assert_equal(model.module.state_dict(), saved)
    assert not model.module.training
    assert all(p.requires_grad and p.is_contiguous() for p in model.module.parameters())
    assert model.origin == WeightsOrigin(
        "file", None, f"mine{suffix}", sha256_of_state_dict(saved), None, None
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    saved = {key: value.to(dtype) for key, value in state_dict_of().items()}
    path = save(saved, tmp_path / "half.pth")
    state_dict = build_with_weights(LENET, weights=path).module.state_dict()
    for key, value in saved.items():
        assert state_dict[key].dtype == torch.float32
        assert torch.equal(state_dict[key].to(dtype), value)


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1", "resnet18"])
def test_placeholders_leave_no_trace(tmp_path: Path, name: str) -> None:
    """A network built around a file equals one built in full and then loaded."""
    card = get_card(name) if name == "lenet5" else small(name)
    saved = state_dict_of(card)
    path = save(saved, tmp_path / "a.pth")
    module = build_with_weights(card, weights=path).module
    expected = card.builder()
    expected.load_state_dict(saved)
    assert_equal(module.state_dict(), expected.state_dict())
    expected_buffers = dict(expected.named_buffers())
    for key, buffer in module.named_buffers():
        assert torch.equal(buffer, expected_buffers[key]), key


def test_checkpoint_from_before_steps_were_counted(tmp_path: Path) -> None:
    card = small("resnet18")
    saved = state_dict_of(card)
    old = {k: v for k, v in saved.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(saved)
    module = build_with_weights(card, weights=save(old, tmp_path / "old.pth")).module
    assert_equal(module.state_dict(), saved)


def test_missing_unexpected_and_misshaped_keys(tmp_path: Path) -> None:
    state_dict = state_dict_of()
    for key in ("c1.weight", "c3.weight", "c3.bias", "c5.bias"):
        del state_dict[key]
    state_dict["conv.weight"] = torch.zeros(1)
    state_dict["f6.weight"] = torch.zeros(84, 121)
    assert error_of(save(state_dict, tmp_path / "odd.pth")) == (
        CheckpointMismatchError,
        "odd.pth for lenet5_relu: does not fit. 4 missing: c1.weight, c3.weight, c3.bias, …; "
        "1 unexpected: conv.weight; 1 mis-shaped: f6.weight [84, 121] instead of [84, 120]. Pass "
        "weights that were saved from this model.",
    )


def test_other_number_of_classes(tmp_path: Path) -> None:
    path = save(state_dict_of(num_classes=47), tmp_path / "emnist.pth")
    assert error_of(path) == (
        CheckpointMismatchError,
        "emnist.pth for lenet5_relu: does not fit. 2 mis-shaped: output.weight [47, 84] instead of "
        "[10, 84], output.bias [47] instead of [10]. It seems to have 47 classes, the model 10: "
        "build it with `num_classes=47`.",
    )
    build_with_weights(LENET, weights=path, num_classes=47)


def test_misfit_leaves_the_module_as_it_was() -> None:
    module = nn.Linear(2, 2)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(CheckpointMismatchError):
        copy_state_dict(module, {"weight": torch.zeros(2, 2)}, "half a layer")
    assert_equal(module.state_dict(), before)


def test_checkpoint_without_checksums(tmp_path: Path) -> None:
    saved = state_dict_of()
    torch.serialization.set_crc32_options(False)
    try:
        path = save(saved, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_equal(build_with_weights(LENET, weights=path).module.state_dict(), saved)


def test_reading_maps_the_file(tmp_path: Path) -> None:
    saved = state_dict_of()
    assert_equal(load_state_dict_file(save(saved, tmp_path / "w.pth")), dict(saved))


# -- the digest ----------------------------------------------------------------------------------


def test_digest_is_its_formula() -> None:
    weight_OI = torch.tensor([[1.5, -2.0, 0.0], [3.0, 4.0, -0.0]])
    half_C = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    count = torch.tensor(258, dtype=torch.int64)
    state_dict = OrderedDict([("w", weight_OI), ("count", count), ("half", half_C)])
    expected = hashlib.sha256(
        b"count int64 []\n"
        + np.array(258, dtype="<i8").tobytes()
        + b"half bfloat16 [2]\n"
        + b"\x80\x3f\x00\x40"
        + b"w float32 [2, 3]\n"
        + weight_OI.numpy().astype("<f4").tobytes()
    ).hexdigest()
    assert sha256_of_state_dict(state_dict) == expected
    # Neither the order of the keys nor the layout in memory counts.
    turned = {"half": half_C, "w": weight_OI.t().contiguous().t(), "count": count}
    assert sha256_of_state_dict(turned) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.tensor([0.0, 1.0])},
        {"a": torch.tensor([-0.0, 2.0])},
        {"a": torch.tensor([[0.0], [2.0]])},
        {"a": torch.tensor([0.0, 2.0], dtype=torch.float64)},
        {"b": torch.tensor([0.0, 2.0])},
        {"a": torch.tensor([0.0, 2.0]), "b": torch.tensor([])},
        {},
    ],
)
def test_every_difference_changes_the_digest(other: dict[str, Tensor]) -> None:
    assert sha256_of_state_dict(other) != sha256_of_state_dict({"a": torch.tensor([0.0, 2.0])})
