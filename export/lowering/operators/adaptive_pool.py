"""Adaptive pooling: output i of n is over the elements ``floor(i H / n)`` to ``ceil((i+1) H / n)``.

ONNX has no such operator. Windows of one size, where n divides a known H, are a plain pooling.
Else each axis is gathered window by window, elements beyond a window's end masked, and reduced:
sizes may be open, and a NaN or Inf stays in the windows that hold it, which a product with a
matrix of weights would not give (0 Inf is NaN).

Source:
    ATen/native/AdaptivePooling.h, start_index and end_index.

Shape legend: n windows of at most L elements along an axis of H.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlzoo.export.lowering.onnx_operators import constant, op
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator

_RANK = 4


def _known_size(x: Any, axis: int) -> int | None:
    """The size of an axis, or None where it is open."""
    size = x.shape[axis] if x.shape is not None else None
    return size if isinstance(size, int) else None


def _kernel(x: Any, output_size: Sequence[int]) -> list[int] | None:
    """The one window that all outputs have, or None."""
    sizes = [_known_size(x, axis) for axis in (2, 3)]
    if any(h is None or h % n for h, n in zip(sizes, output_size, strict=True)):
        return None
    return [h // n for h, n in zip(sizes, output_size, strict=True) if h is not None]


def _refuses_fixed(x: Any, output_size: Sequence[Any]) -> str:
    refusal = _refuses_windows(x, output_size)
    if refusal:
        return refusal
    return "" if _kernel(x, output_size) else "needs windows of one known size"


def _refuses_windows(x: Any, output_size: Sequence[Any]) -> str:
    if x.shape is None or len(x.shape) != _RANK:
        return "needs a batch: [N, C, H, W]"
    if not all(isinstance(n, int) for n in output_size):
        return "needs an output size that does not depend on the input's"
    return ""


def _int64(*values: int) -> Any:
    return constant(np.array(values, np.int64))


def _windows(x: Any, axis: int, n: int) -> tuple[Any, Any, Any]:
    """Positions [n, L], whether each is inside its window [n, L], and the lengths [n]."""
    size = _known_size(x, axis)
    if size is not None:
        i = np.arange(n)
        start, end = i * size // n, -(-(i + 1) * size // n)
        position = start[:, None] + np.arange((end - start).max())
        return (
            _constant(np.minimum(position, size - 1)),
            _constant(position < end[:, None]),
            _constant((end - start).astype(np.float32)),
        )
    h = op.Gather(op.Shape(x), _int64(axis), axis=0)  # [1]
    i_n1 = _constant(np.arange(n).reshape(n, 1))
    start_n1 = op.Div(op.Mul(i_n1, h), _int64(n))
    end_n1 = op.Div(op.Add(op.Mul(op.Add(i_n1, _int64(1)), h), _int64(n - 1)), _int64(n))
    # The longest window, or one more.
    longest = op.Add(op.Div(op.Sub(h, _int64(1)), _int64(n)), _int64(2))
    zero, one = _constant(np.int64(0)), _constant(np.int64(1))
    position_nl = op.Add(start_n1, op.Range(zero, op.Squeeze(longest, _int64(0)), one))
    inside_nl = op.Less(position_nl, end_n1)
    length_n = op.Squeeze(op.Cast(op.Sub(end_n1, start_n1), to=1), _int64(1))
    # What lies outside is masked; it has to exist all the same.
    return op.Where(inside_nl, position_nl, start_n1), inside_nl, length_n


def _constant(value: Any) -> Any:
    return constant(value)


def _average_windows(x: Any, output_size: Sequence[int]) -> Any:
    zero = _constant(np.float32(0))
    row_nl, row_inside_nl, height_n = _windows(x, 2, output_size[0])
    column_nl, column_inside_nl, width_n = _windows(x, 3, output_size[1])
    rows = op.Where(op.Unsqueeze(row_inside_nl, _int64(2)), op.Gather(x, row_nl, axis=2), zero)
    y = op.Div(op.ReduceSum(rows, _int64(3), keepdims=0), op.Unsqueeze(height_n, _int64(1)))
    columns = op.Where(column_inside_nl, op.Gather(y, column_nl, axis=3), zero)
    return op.Div(op.ReduceSum(columns, _int64(4), keepdims=0), width_n)


def _max_windows(x: Any, output_size: Sequence[int]) -> tuple[Any, Any]:
    """The largest elements, and their places in the plane H W; the first of equal ones.

    A window with a NaN gives NaN. That needs nodes of its own: ONNX Runtime's CPU ReduceMax loses
    a NaN in 15 of 16 places (measured, 1.32).
    """
    row_nl, row_inside_nl, _ = _windows(x, 2, output_size[0])
    column_nl, column_inside_nl, _ = _windows(x, 3, output_size[1])
    # Windows are [N, C, n, L, n, L]: rows and columns each get their two axes.
    inside = op.And(op.Unsqueeze(row_inside_nl, _int64(2, 3)), column_inside_nl)
    windows = op.Gather(op.Gather(x, row_nl, axis=2), column_nl, axis=4)
    windows = op.Where(inside, windows, _constant(np.float32("-inf")))
    kept = op.ReduceMax(windows, _int64(3, 5), keepdims=1)
    width = op.Gather(op.Shape(x), _int64(3), axis=0)
    place = op.Add(op.Mul(op.Unsqueeze(row_nl, _int64(2, 3)), width), column_nl)
    is_largest = op.And(op.Equal(windows, kept), inside)
    beyond = _constant(np.int64(2**62))
    places = op.ReduceMin(op.Where(is_largest, place, beyond), _int64(3, 5), keepdims=0)
    holds_nan = op.ReduceMax(op.Cast(op.IsNaN(windows), to=1), _int64(3, 5), keepdims=1)
    kept = op.Where(op.Cast(holds_nan, to=9), _constant(np.float32("nan")), kept)
    return op.Squeeze(kept, _int64(3, 5)), places


def _average_fixed(x: Any, output_size: Sequence[int]) -> Any:
    kernel = _kernel(x, output_size)
    if kernel == [1, 1]:
        return op.Identity(x)
    return op.AveragePool(x, kernel_shape=kernel, strides=kernel)


add_operator(
    Operator(
        name="adaptive_avg_pool2d",
        torch_operators=("aten._adaptive_avg_pool2d.default",),
        formula="mean of x over rows floor(i H/n) to ceil((i+1) H/n) and columns likewise",
    ),
    Lowering(
        operator="adaptive_avg_pool2d",
        spelling="native",
        onnx=("AveragePool",),
        translate=_average_fixed,
        refuses=_refuses_fixed,
    ),
    Lowering(
        operator="adaptive_avg_pool2d",
        spelling="decomposed",
        onnx=("Gather", "Where", "ReduceSum", "Div"),
        translate=_average_windows,
        refuses=_refuses_windows,
        note="any size, open ones too",
    ),
)
add_operator(
    Operator(
        name="adaptive_max_pool2d",
        torch_operators=("aten.adaptive_max_pool2d.default",),
        formula="largest x over rows floor(i H/n) to ceil((i+1) H/n) and columns likewise",
    ),
    Lowering(
        operator="adaptive_max_pool2d",
        spelling="decomposed",
        onnx=("Gather", "Where", "ReduceMax"),
        translate=_max_windows,
        refuses=_refuses_windows,
        note="any size, open ones too",
    ),
)
