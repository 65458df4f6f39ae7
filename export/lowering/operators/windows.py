"""Windows along one axis, each a weighted sum of a few places: what pooling in unequal steps is.

A window's places are gathered, with the index of an appended zero where a window is shorter
than the longest; so Inf and NaN reach the windows that hold them, and no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from dlzoo.export.lowering.onnx_operators import constant, ints, op

#: What :func:`weighted_windows` is made of.
OPERATORS = ("Pad", "Gather", "Reshape", "Mul", "ReduceSum")


def adaptive_bounds(size: int, num_windows: int) -> list[tuple[int, int]]:
    """First and one-past-last place of each window of adaptive pooling.

    ``floor(i n / m)`` to ``ceil((i + 1) n / m)``

    >>> adaptive_bounds(5, 3)
    [(0, 2), (1, 4), (3, 5)]
    """
    return [
        (i * size // num_windows, -(-(i + 1) * size // num_windows))
        for i in range(num_windows)
    ]


def weighted_windows(
    x: ir.Value,
    axis: int,
    size: int,
    windows: Sequence[tuple[int, npt.NDArray[np.float64]]],
) -> Any:
    """Sums of ``x`` along one axis: each window has a first place and its weights.

    Args:
        x: of four axes.
        axis: 2 or 3.
        size: of that axis.
        windows: for each place of the result.
    """
    assert x.dtype is not None
    longest = max(len(weights) for _, weights in windows)
    places = np.full((len(windows), longest), size, np.int64)
    factors = np.zeros((len(windows), longest), x.dtype.numpy())
    for row, (first, weights) in enumerate(windows):
        places[row, : len(weights)] = np.arange(first, first + len(weights))
        factors[row, : len(weights)] = weights
    pads = [0] * 8
    pads[4 + axis] = 1
    padded = op.Pad(x, ints(*pads))
    gathered = gather_windows(padded, axis, places)
    trailing = [1] * (3 - axis)
    weights = factors.reshape(*factors.shape, *trailing)
    weighted = op.Mul(gathered, constant(weights))
    return op.ReduceSum(weighted, ints(axis + 1), keepdims=0)


def gather_windows(x: Any, axis: int, places: npt.NDArray[np.int64]) -> Any:
    """``x`` with ``axis`` replaced by two: windows, and places inside a window."""
    return op.Gather(x, constant(places), axis=axis)
