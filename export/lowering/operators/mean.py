"""Mean over axes, which global average pooling is: ``sum(x) / n``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dlzoo.export.lowering.onnx_operators import op
from dlzoo.export.lowering.operators.stepwise_mean import (
    axes_of,
    mean_in_one_step,
    mean_in_steps,
    why_inexact,
)
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator


def _is_scalar(x: Any) -> bool:
    return len(x.shape) == 0


def _mean(
    mean_of: Callable[..., Any],
    x: Any,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    dtype: int | None = None,
) -> Any:
    cast = _cast(x, dtype)
    if _is_scalar(x):
        return op.Identity(cast)
    cast.shape = cast.shape or x.shape
    return mean_of(cast, axes_of(x, dim), keepdims=keepdim)


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
        translate=partial(_mean, mean_in_one_step),
        inexact_for=_why_inexact,
        note="up to 1,024 numbers to a mean, or one axis",
    ),
    Lowering(
        operator="mean",
        spelling="decomposed",
        onnx=("ReduceMean", "Reshape", "Squeeze"),
        translate=partial(_mean, mean_in_steps),
        note="one axis after another: exact for images of one color",
    ),
)
