"""Weights in files, as tests write them, and the errors that loading them gives."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dlzoo.errors import WeightsError
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.registry import Card
from dlzoo.zoo.weights import build_with_weights

LENET = get_card("lenet5_relu")


def small(name: str) -> Card:
    """A card whose random weights are given signal at 64 x 64 pixels, in a tenth of the time."""
    return replace(get_card(name), input_shape=(3, 64, 64))


def state_dict_of(card: Card = LENET, seed: int = 7, **arguments: Any) -> dict[str, Tensor]:
    return build_with_weights(
        card, weights="random", seed=seed, **arguments
    ).module.state_dict()


def save(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def error_of(path: Path | str, card: Card = LENET, **arguments: Any) -> tuple[type, str]:
    """The kind and the text of the error that loading gives, its folder left out."""
    with pytest.raises(WeightsError) as caught:
        build_with_weights(card, weights=path, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return type(caught.value), message.replace(f"{Path(path).parent}{os.sep}", "")


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(actual) == list(expected)
    for key, value in expected.items():
        assert actual[key].dtype == value.dtype
        assert torch.equal(actual[key], value), key


def prefixed(prefix: str, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state_dict.items()}


WAYS_TO_SAVE = {
    "plain": lambda s, p: torch.save(s, p),
    "before 2020": lambda s, p: torch.save(s, p, _use_new_zipfile_serialization=False),
    "safetensors": lambda s, p: save_file(s, p),
    "state_dict": lambda s, p: torch.save({"epoch": 3, "state_dict": s}, p),
    "model": lambda s, p: torch.save({"model": s, "optimizer": {"state": {}}}, p),
    "nested": lambda s, p: torch.save({"model": {"state_dict": s}}, p),
    "DataParallel": lambda s, p: torch.save({"state_dict": prefixed("module.", s)}, p),
    "compiled": lambda s, p: torch.save(prefixed("module._orig_mod.", s), p),
    "parameters": lambda s, p: torch.save({k: nn.Parameter(v) for k, v in s.items()}, p),
    "channels last": lambda s, p: torch.save(
        {
            k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v
            for k, v in s.items()
        },
        p,
    ),
}
