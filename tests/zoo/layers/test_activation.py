"""Activations against their formulas."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlzoo.zoo.layers.layer_registry import get_layer, list_layers

Array = np.ndarray[Any, Any]


def erf(z: Array) -> Array:
    """Of a real number with an infinitesimal imaginary part."""
    real = np.vectorize(math.erf, otypes=[float])(z.real)
    return real + 1j * z.imag * 2 / math.sqrt(math.pi) * np.exp(-(z.real**2))


def positive(x: Array, then: Array, otherwise: Array) -> Array:
    return np.where(x.real > 0, then, otherwise)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


FORMULAS: dict[str, Callable[[Array, Any], Array]] = {
    "relu": lambda x, _: positive(x, x, 0 * x),
    "relu6": lambda x, _: positive(6 - x, positive(x, x, 0 * x), 6 + 0 * x),
    "sigmoid": lambda x, _: sigmoid(x),
    "tanh": lambda x, _: 2 * sigmoid(2 * x) - 1,
    "scaled_tanh": lambda x, _: 1.7159 * np.tanh(x * 2 / 3),
    "leaky_relu": lambda x, _: positive(x, x, 0.01 * x),
    "prelu": lambda x, values: positive(x, x, values["weight"] * x),
    "swish": lambda x, _: x * sigmoid(x),
    "gelu": lambda x, _: x * (1 + erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x, _: (
        x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    ),
    "mish": lambda x, _: x * np.tanh(np.log(1 + np.exp(x))),
    "hardswish": lambda x, _: positive(x + 3, positive(3 - x, x * (x + 3) / 6, x), 0 * x),
}


def test_every_activation_is_here() -> None:
    assert set(FORMULAS) == {card.name for card in list_layers("activation")}


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=15, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.1, 1.0, 4.0]),
)
def test_formula_and_gradient(
    name: str, shape: list[int], seed: int, scale: float, against_formula: Callable[..., None]
) -> None:
    against_formula(get_layer(name).build(), FORMULAS[name], tuple(shape), seed, scale)


@settings(max_examples=15, deadline=None)
@given(channels=st.integers(1, 4), size=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_prelu_with_one_slope_a_channel(
    channels: int, size: int, seed: int, against_formula: Callable[..., None]
) -> None:
    def formula(x: Array, values: Any) -> Array:
        return positive(x, x, values["weight"][:, None, None] * x)

    layer = get_layer("prelu").build(channels)
    against_formula(layer, formula, (2, channels, size, size), seed)


@pytest.mark.parametrize("target", [-1.0, 1.0])
def test_lecuns_tanh_meets_its_targets(target: float) -> None:
    # The paper, appendix A: f(1) = 1, f(-1) = -1, and the curvature is largest there.
    squash = get_layer("scaled_tanh").build().double()
    h = 1e-3
    at = target * torch.tensor([0.9, 1.0, 1.1], dtype=torch.float64)
    below, here, above = squash(at - h), squash(at), squash(at + h)
    assert abs(here[1].item() - target) < 1e-4
    assert ((above - 2 * here + below) / h**2).abs().argmax().item() == 1
