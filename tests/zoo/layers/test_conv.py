"""Convolutions and the arithmetic of sliding windows."""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.layers.connection_table import TableConvolution
from dlzoo.zoo.layers.conv import convolution, output_size, same_padding

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32 - 1)


def convolve(
    x_NCHW: Array,
    weight_OCFF: Array,
    bias_O: Array,
    *,
    stride: int,
    padding: int,
    dilation: int = 1,
    groups: int = 1,
) -> Array:
    """y_o = b_o + sum_{c,i,j} w_{o,c,i,j} x_{c, s h + d i - p, s w + d j - p}."""
    sides = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    padded = np.pad(x_NCHW, sides)
    size = weight_OCFF.shape[2]
    extent = dilation * (size - 1) + 1
    height, width = ((n - extent) // stride + 1 for n in padded.shape[2:])
    outputs = []
    for o, kernel in enumerate(weight_OCFF):
        first = o // (len(weight_OCFF) // groups) * len(kernel)
        y = np.zeros((len(padded), height, width), np.result_type(padded, kernel)) + bias_O[o]
        for c, i, j in product(range(len(kernel)), range(size), range(size)):
            rows = slice(dilation * i, dilation * i + stride * (height - 1) + 1, stride)
            columns = slice(dilation * j, dilation * j + stride * (width - 1) + 1, stride)
            y = y + kernel[c, i, j] * padded[:, first + c, rows, columns]
        outputs.append(y)
    return np.stack(outputs, 1)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.one_of(st.sampled_from(["valid", "same"]), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 2),
    seed=SEEDS,
)
def test_convolution(
    size: tuple[int, int],
    kernel: int,
    stride: int,
    padding: Any,
    dilation: int,
    groups: int,
    seed: int,
    against_formula: Callable[..., None],
) -> None:
    extent = dilation * (kernel - 1) + 1
    assume(padding != "same" or extent % 2)
    pixels = {"valid": 0, "same": extent // 2}.get(padding, padding)
    assume(min(size) + 2 * pixels >= extent)
    layer = convolution(
        2 * groups,
        2 * groups,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )

    def formula(x: Array, values: Mapping[str, Array]) -> Array:
        return convolve(
            x,
            values["weight"],
            values["bias"],
            stride=stride,
            padding=pixels,
            dilation=dilation,
            groups=groups,
        )

    against_formula(layer, formula, (2, 2 * groups, *size), seed)


@settings(max_examples=150, deadline=None)
@given(
    n_in=st.integers(1, 40),
    kernel=st.integers(1, 11),
    stride=st.integers(1, 5),
    padding=st.integers(0, 5),
    dilation=st.integers(1, 3),
)
def test_output_size_of_a_convolution_is_torchs(
    n_in: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    layer = nn.Conv1d(1, 1, kernel, stride, padding, dilation)
    x = torch.zeros(1, 1, n_in)
    try:
        expected = layer(x).shape[2]
    except RuntimeError:
        with pytest.raises(ArgumentError, match=f"got {n_in} pixels and padding {padding}"):
            output_size(n_in, kernel, stride=stride, padding=padding, dilation=dilation)
    else:
        sizes = {"stride": stride, "padding": padding, "dilation": dilation}
        assert output_size(n_in, kernel, **sizes) == expected


@settings(max_examples=150, deadline=None)
@given(
    n_in=st.integers(1, 40), kernel=st.integers(1, 7), stride=st.integers(1, 5), data=st.data()
)
def test_output_size_of_a_pooling_is_torchs(
    n_in: int, kernel: int, stride: int, data: st.DataObject
) -> None:
    padding = data.draw(st.integers(0, kernel // 2))
    assume(n_in + 2 * padding >= kernel)
    layer = nn.MaxPool1d(kernel, stride, padding, ceil_mode=True)
    expected = layer(torch.zeros(1, 1, n_in)).shape[2]
    assert (
        output_size(n_in, kernel, stride=stride, padding=padding, ceil_mode=True) == expected
    )


def test_same_keeps_the_size_and_divides_it_by_the_stride() -> None:
    for n_in, kernel, stride, dilation in product((7, 8), (1, 3, 5), (1, 2, 3), (1, 2)):
        padding, _ = same_padding(kernel, dilation)
        n_out = output_size(n_in, kernel, stride=stride, padding=padding, dilation=dilation)
        assert n_out == -(-n_in // stride)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: output_size(5, 11, padding=2),
            "Sliding window: got 5 pixels and padding 2, expected at least 7 pixels for a window "
            "of 11; use a larger image or more padding.",
        ),
        (
            lambda: output_size(224, 11, stride=4, exact=True),
            "Sliding window: got (n_in + 2p - f) = 213, expected a multiple of the stride 4; use "
            "227 pixels or another padding.",
        ),
        (
            lambda: output_size(8, 3, stride=0),
            "Sliding window: got stride 0, expected 1 or more.",
        ),
        (
            lambda: output_size(8, 3, padding=-1),
            "Sliding window: got padding -1, expected 0 or more.",
        ),
        (
            lambda: convolution(1, 1, 4, padding="same"),
            "Convolution: got padding 'same' with kernel size 4 and dilation 1, expected an odd "
            "kernel: an even one needs unequal sides. Give the padding in pixels.",
        ),
        (
            lambda: convolution(1, 1, 3, padding="full"),  # type: ignore[arg-type]
            "Convolution: got padding 'full', expected 'valid', 'same' or pixels.",
        ),
        (
            lambda: TableConvolution(3, [[0, 1], [2, 3]], 5),
            "Connection table: got [2, 3] for output map 1, expected different input maps from 0 "
            "to 2; correct that row.",
        ),
        (
            lambda: TableConvolution(3, [[0, 0]], 5),
            "Connection table: got [0, 0] for output map 0, expected different input maps from 0 "
            "to 2; correct that row.",
        ),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        call()
    assert str(caught.value) == message


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, list[list[int]]]:
    in_channels = draw(st.integers(1, 4))
    rows = st.sets(st.integers(0, in_channels - 1), min_size=1).map(sorted)
    return in_channels, draw(st.lists(rows, min_size=1, max_size=4))


@settings(max_examples=25, deadline=None)
@given(table=tables(), kernel=st.integers(1, 3), size=st.integers(3, 6), seed=SEEDS)
def test_table_convolution(
    table: tuple[int, list[list[int]]],
    kernel: int,
    size: int,
    seed: int,
    against_formula: Callable[..., None],
) -> None:
    in_channels, connections = table

    def formula(x: Array, values: Mapping[str, Array]) -> Array:
        outputs, pair = [], 0
        for o, inputs in enumerate(connections):
            kernels = values["weight"][pair : pair + len(inputs)]
            bias = values["bias"][o : o + 1]
            outputs.append(convolve(x[:, inputs], kernels[None], bias, stride=1, padding=0))
            pair += len(inputs)
        return np.concatenate(outputs, 1)

    layer = TableConvolution(in_channels, connections, kernel)
    against_formula(layer, formula, (2, in_channels, size, size), seed)


def test_table_convolution_starts_within_its_fan_in() -> None:
    layer = TableConvolution(6, [[0, 1, 2], [0, 1, 2, 3, 4, 5]], 5)
    few, many = layer.weight[:3].abs().max().item(), layer.weight[3:].abs().max().item()
    assert 2.4 / 75 * 0.8 < few <= 2.4 / 75
    assert 2.4 / 150 * 0.8 < many <= 2.4 / 150
