"""Normalizations against their formulas."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlzoo.errors import ArgumentError
from dlzoo.zoo.layers.layer_registry import get_layer
from dlzoo.zoo.layers.norm import local_response_norm

Array = np.ndarray[Any, Any]
EPS = 1e-5
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(2, 4), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))


def standardized(x: Array, axes: tuple[int, ...], eps: float = EPS) -> Array:
    deviation = x - x.mean(axes, keepdims=True)
    return deviation / np.sqrt((deviation * deviation).mean(axes, keepdims=True) + eps)


def affine(x_NCHW: Array, values: Mapping[str, Array]) -> Array:
    return values["weight"][:, None, None] * x_NCHW + values["bias"][:, None, None]


@settings(max_examples=20, deadline=None)
@given(shape=SIZES, seed=SEEDS)
def test_batch_norm_in_training(
    shape: tuple[int, ...], seed: int, against_formula: Callable[..., None]
) -> None:
    layer = get_layer("batch_norm").build(shape[1])
    against_formula(
        layer, lambda x, values: affine(standardized(x, (0, 2, 3)), values), shape, seed
    )


@settings(max_examples=20, deadline=None)
@given(shape=SIZES, seed=SEEDS)
def test_batch_norm_in_evaluation(
    shape: tuple[int, ...], seed: int, against_formula: Callable[..., None]
) -> None:
    layer = get_layer("batch_norm").build(shape[1]).double().eval()
    layer.running_mean.uniform_(-1, 1)
    layer.running_var.uniform_(0.5, 2)

    def formula(x: Array, values: Mapping[str, Array]) -> Array:
        mean, variance = values["running_mean"], values["running_var"]
        standard = (x - mean[:, None, None]) / np.sqrt(variance + EPS)[:, None, None]
        return affine(standard, values)

    against_formula(layer, formula, shape, seed)


@settings(max_examples=20, deadline=None)
@given(groups=st.integers(1, 3), each=st.integers(1, 3), size=st.integers(2, 4), seed=SEEDS)
def test_group_norm(
    groups: int, each: int, size: int, seed: int, against_formula: Callable[..., None]
) -> None:
    def formula(x: Array, values: Mapping[str, Array]) -> Array:
        grouped = x.reshape(len(x), groups, -1)
        return affine(standardized(grouped, (2,)).reshape(x.shape), values)

    layer = get_layer("group_norm").build(groups * each, num_groups=groups)
    against_formula(layer, formula, (2, groups * each, size, size), seed)


def test_group_norm_has_32_groups_as_in_the_paper() -> None:
    assert get_layer("group_norm").build(64).num_groups == 32


def test_group_norm_refuses_channels_that_do_not_divide() -> None:
    with pytest.raises(ArgumentError) as caught:
        get_layer("group_norm").build(48)
    assert str(caught.value) == (
        "GroupNorm: got 48 channels in 32 groups, expected a number of groups that divides the "
        "channels; pass `num_groups`."
    )


@settings(max_examples=20, deadline=None)
@given(shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 6)), seed=SEEDS)
def test_layer_norm(
    shape: tuple[int, ...], seed: int, against_formula: Callable[..., None]
) -> None:
    def formula(x: Array, values: Mapping[str, Array]) -> Array:
        return values["weight"] * standardized(x, (-1,)) + values["bias"]

    against_formula(get_layer("layer_norm").build(shape[-1]), formula, shape, seed)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(
        st.integers(1, 3), st.integers(2, 6), st.integers(1, 4), st.integers(1, 4)
    ),
    seed=SEEDS,
)
def test_layer_norm_channels_first(
    shape: tuple[int, ...], seed: int, against_formula: Callable[..., None]
) -> None:
    layer = get_layer("layer_norm_channels_first").build(shape[1])
    against_formula(
        layer, lambda x, values: affine(standardized(x, (1,)), values), shape, seed
    )


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(
        st.integers(1, 2), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)
    ),
    size=st.sampled_from([1, 3, 5, 7]),
    alpha=st.sampled_from([1e-4, 0.1, 1.0]),
    k=st.sampled_from([1.0, 2.0]),
    seed=SEEDS,
)
def test_local_response_norm_is_the_papers(
    shape: tuple[int, ...],
    size: int,
    alpha: float,
    k: float,
    seed: int,
    against_formula: Callable[..., None],
) -> None:
    """b_i = a_i / (k + alpha sum_{j = max(0, i - n/2)}^{min(N - 1, i + n/2)} a_j^2)^beta."""
    num_channels = shape[1]

    def formula(x: Array, _: Mapping[str, Array]) -> Array:
        rows = []
        for i in range(num_channels):
            window = x[:, max(0, i - size // 2) : min(num_channels - 1, i + size // 2) + 1]
            rows.append(x[:, i] / (k + alpha * (window * window).sum(1)) ** 0.75)
        return np.stack(rows, 1)

    layer = local_response_norm(size=size, alpha=alpha, k=k)
    against_formula(layer, formula, shape, seed)


def test_local_response_norm_has_alexnets_constants() -> None:
    layer = local_response_norm()
    # torch divides alpha by the size, the paper does not.
    assert (layer.k, layer.size, layer.alpha / layer.size, layer.beta) == (2, 5, 1e-4, 0.75)


@pytest.mark.parametrize(("size", "offer"), [(4, "Use 3 or 5."), (0, "Use 1 or 1.")])
def test_local_response_norm_refuses_an_even_size(size: int, offer: str) -> None:
    with pytest.raises(
        ArgumentError, match=f"got size {size}, expected an odd number"
    ) as caught:
        local_response_norm(size=size)
    assert str(caught.value).endswith(offer)
