"""Variance over axes: ``sum((x - mean)^2) / (n - correction)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dlzoo.export.lowering.onnx_operators import constant, ints, op
from dlzoo.export.lowering.operators.stepwise_mean import (
    MAX_IN_A_VARIANCE,
    axes_of,
    mean_in_one_step,
    mean_in_steps,
    why_inexact,
)
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator

_Mean = Callable[..., Any]


def _variance(
    mean_of: _Mean,
    x: Any,
    dim: Sequence[int] | None = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Any:
    return _variance_and_mean(mean_of, x, dim, unbiased, keepdim, correction=correction)[0]


def _variance_and_mean(
    mean_of: _Mean,
    x: Any,
    dim: Sequence[int] | None = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Any, Any]:
    axes = axes_of(x, dim)
    mean = mean_of(x, axes)
    centered = op.Sub(x, mean)
    centered.shape, centered.dtype = x.shape, x.dtype
    variance = mean_of(centered, axes, keepdims=keepdim, squared=True)
    missing = float(unbiased) if correction is None else float(correction)
    if missing:
        variance = op.Mul(variance, _ratio(x, axes, missing))
    return variance, mean if keepdim else op.Squeeze(mean, ints(*axes))


def _ratio(x: Any, axes: Sequence[int], missing: float) -> Any:
    """``n / (n - missing)``; from the sizes at run time where they are open."""
    sizes = [x.shape[axis] for axis in axes]
    if all(isinstance(size, int) for size in sizes):
        number = math.prod(sizes)
        ratio = number / (number - missing) if number != missing else math.nan
        return constant(np.array(ratio, x.dtype.numpy()))
    number = op.Cast(
        op.ReduceProd(op.Gather(op.Shape(x), ints(*axes)), keepdims=0), to=x.dtype
    )
    return op.Div(number, op.Sub(number, constant(np.array(missing, x.dtype.numpy()))))


def _why_inexact(x: Any, dim: Sequence[int] | None = None, *_: Any, **__: Any) -> str:
    return why_inexact(x, axes_of(x, dim), MAX_IN_A_VARIANCE)


for _name, _translate, _torch_operators in (
    ("variance", _variance, ("aten.var.dim", "aten.var.correction")),
    (
        "variance_and_mean",
        _variance_and_mean,
        ("aten.var_mean.dim", "aten.var_mean.correction"),
    ),
):
    add_operator(
        Operator(
            name=_name,
            torch_operators=_torch_operators,
            formula="sum of (x - mean)^2 over axes, divided by n - correction",
        ),
        Lowering(
            operator=_name,
            spelling="decomposed",
            form="one_step",
            onnx=("ReduceMean", "Sub", "Mul"),
            translate=partial(_translate, mean_in_one_step),
            inexact_for=_why_inexact,
            note="up to 256 numbers to a mean, or one axis",
        ),
        Lowering(
            operator=_name,
            spelling="decomposed",
            form="by_axis",
            onnx=("ReduceMean", "ReduceSumSquare", "Sub", "Mul", "Div", "Reshape", "Squeeze"),
            translate=partial(_translate, mean_in_steps),
            note="one axis after another: exact for images of one color",
        ),
    )
