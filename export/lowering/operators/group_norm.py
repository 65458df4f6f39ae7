"""GroupNorm: ``gamma_c (x - mean_ng) / sqrt(var_ng + eps) + beta_c``.

InstanceNormalization of the groups gives the middle part. The outer part is what an inference
BatchNormalization with mean 0 and variance 1 does, in one pass where Mul and Add take two. ONNX
Runtime sums all numbers of a group in few long rows, though; where groups are large, means in steps
take their place.

Source:
    Wu & He 2018, "Group normalization", equations 1 and 6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from dlzoo.export.lowering.onnx_operators import constant, ints, op, op21
from dlzoo.export.lowering.operators.stepwise_mean import mean_in_steps, why_inexact
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator

#: Numbers to a group up to which one InstanceNormalization is exact enough: of N(0, 1) it has 1.9 x
#: PyTorch's error for 6,272 and 3.9 for 50,176, of N(3, 1) 3.5 and 7.2 (ONNX Runtime 1.32, CPU).
_MAX_IN_A_GROUP = 8192


def full(x: ir.Value, value: float, size: int) -> Any:
    """A constant row of one value, in the dtype of x."""
    assert x.dtype is not None
    return constant(np.full(size, value, x.dtype.numpy()))


def _shape_of(x: ir.Value) -> Any:
    """The shape as a constant where at most one size is open, else as it comes."""
    assert x.shape is not None
    sizes = [size if isinstance(size, int) else -1 for size in x.shape]
    return ints(*sizes) if sizes.count(-1) <= 1 else op.Shape(x)


def _num_channels(x: ir.Value) -> int:
    assert x.shape is not None and isinstance(x.shape[1], int), "channels are never open"
    return x.shape[1]


def _normalized(x: Any, num_groups: int, eps: float) -> Any:
    grouped = op.Reshape(x, ints(0, num_groups, -1))
    one, zero = full(x, 1.0, num_groups), full(x, 0.0, num_groups)
    y = op.InstanceNormalization(grouped, one, zero, epsilon=float(eps))
    return op.Reshape(y, _shape_of(x))


def _native(
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    scale = full(x, 1.0, _num_channels(x)) if weight is None else weight
    shift = full(x, 0.0, _num_channels(x)) if bias is None else bias
    return op21.GroupNormalization(x, scale, shift, num_groups=num_groups, epsilon=float(eps))


def _instance(
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    y = _normalized(x, num_groups, eps)
    trailing = ints(-1, *[1] * (len(x.shape) - 2))
    y = y if weight is None else op.Mul(y, op.Reshape(weight, trailing))
    return y if bias is None else op.Add(y, op.Reshape(bias, trailing))


def _batch_norm(
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    y = _normalized(x, num_groups, eps)
    if weight is None and bias is None:
        return y
    one, zero = (full(x, value, _num_channels(x)) for value in (1.0, 0.0))
    scale, shift = one if weight is None else weight, zero if bias is None else bias
    return op.BatchNormalization(y, scale, shift, zero, one, epsilon=0.0)


def _mean_of_groups(x: Any, num_groups: int, *, squared: bool = False) -> Any:
    """[N, C, 1, ...]: each channel has the mean of its group."""
    trailing = [1] * (len(x.shape) - 2)
    num_channels = _num_channels(x)
    size = num_channels // num_groups
    mean = mean_in_steps(x, range(2, len(x.shape)), squared=squared)
    if size == 1:
        return mean
    grouped = op.Reshape(mean, ints(0, num_groups, size, *trailing))
    grouped = op.Expand(op.ReduceMean(grouped, ints(2)), ints(1, 1, size, *trailing))
    return op.Reshape(grouped, ints(0, num_channels, *trailing))


def group_norm_by_moments(
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """The formula as it stands, with means that are taken one axis after another."""
    trailing = ints(1, -1, *[1] * (len(x.shape) - 2))
    centered = op.Sub(x, _mean_of_groups(x, num_groups))
    centered.shape, centered.dtype = x.shape, x.dtype
    variance = _mean_of_groups(centered, num_groups, squared=True)
    deviation = op.Sqrt(op.Add(variance, constant(np.array(eps, x.dtype.numpy()))))
    scale = op.Reciprocal(deviation)
    if weight is not None:
        scale = op.Div(op.Reshape(weight, trailing), deviation)
    y = op.Mul(centered, scale)
    return y if bias is None else op.Add(y, op.Reshape(bias, trailing))


def _why_inexact(x: Any, num_groups: int, *_: Any, **__: Any) -> str:
    return why_inexact(x, range(1, len(x.shape)), _MAX_IN_A_GROUP * num_groups)


add_operator(
    Operator(
        name="group_norm",
        torch_operators=("aten.group_norm.default",),
        formula="gamma_c (x - mean_ng) / sqrt(var_ng + eps) + beta_c",
    ),
    Lowering(
        operator="group_norm",
        spelling="decomposed",
        form="affine",
        onnx=("Reshape", "InstanceNormalization", "BatchNormalization"),
        translate=_batch_norm,
        inexact_for=_why_inexact,
    ),
    Lowering(
        operator="group_norm",
        spelling="decomposed",
        form="instance",
        onnx=("Reshape", "InstanceNormalization", "Mul", "Add"),
        translate=_instance,
        inexact_for=_why_inexact,
        note="the exporter's own up to opset 20",
    ),
    Lowering(
        operator="group_norm",
        spelling="native",
        onnx=("GroupNormalization",),
        translate=_native,
        min_opset=21,
        inexact_for=_why_inexact,
    ),
    Lowering(
        operator="group_norm",
        spelling="decomposed",
        form="moments",
        onnx=(
            "ReduceMean",
            "ReduceSumSquare",
            "Sub",
            "Mul",
            "Sqrt",
            "Div",
            "Add",
            "Reshape",
            "Expand",
        ),
        translate=group_norm_by_moments,
        note="exact for large groups, and for images of one color",
    ),
)
