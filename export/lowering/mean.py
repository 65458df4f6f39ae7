"""Mean over axes, which global average pooling is: ``sum(x) / n``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlzoo.export.lowering.onnx_operators import ints, op
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator
from dlzoo.export.lowering.stepwise_mean import axes_of, mean_in_steps, why_inexact


def _is_scalar(x: Any) -> bool:
    return len(x.shape) == 0


def _one_step(
    x: Any,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    dtype: int | None = None,
) -> Any:
    if _is_scalar(x):
        return op.Identity(_cast(x, dtype))
    return op.ReduceMean(_cast(x, dtype), ints(*axes_of(x, dim)), keepdims=int(keepdim))


def _by_axis(
    x: Any,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    dtype: int | None = None,
) -> Any:
    if _is_scalar(x):
        return op.Identity(_cast(x, dtype))
    wide = _cast(x, dtype)
    wide.shape = wide.shape or x.shape
    return mean_in_steps(wide, axes_of(x, dim), keepdims=keepdim)


def _cast(x: Any, dtype: int | None) -> Any:
    return x if dtype in (None, -1) else op.Cast(x, to=dtype)


def _why_inexact(x: Any, dim: Sequence[int] | None = None, *_: Any, **__: Any) -> str:
    return "" if _is_scalar(x) else why_inexact(x, axes_of(x, dim))


add_operator(
    Operator(
        name="mean",
        torch_operators=("aten.mean.dim",),
        formula="sum of x over axes, divided by their sizes",
    ),
    Lowering(
        operator="mean",
        spelling="native",
        onnx=("ReduceMean",),
        translate=_one_step,
        inexact_for=_why_inexact,
        note="up to 256 numbers to a mean, or one axis",
    ),
    Lowering(
        operator="mean",
        spelling="decomposed",
        onnx=("ReduceMean", "Reshape", "Squeeze"),
        translate=_by_axis,
        note="one axis after another: exact for images of one color",
    ),
)
