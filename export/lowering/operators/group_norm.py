"""GroupNorm: ``gamma_c (x - mean_ng) / sqrt(var_ng + eps) + beta_c``.

InstanceNormalization of the groups gives the middle part. The outer part is what an inference
BatchNormalization with mean 0 and variance 1 does, in one pass where Mul and Add take two. ONNX
Runtime sums all numbers of a group in few long rows, though; where groups are large, means in steps
take their place.

In a group of one channel, all numbers of an image of one color are equal: nothing is left but the
error of the mean, divided by sqrt(eps). A mean in one step is taken off first there; the
InstanceNormalization behind it takes off what error that mean had.

Measured on ONNX Runtime 1.32, a CPU, one thread: the largest rho2 over N(0, 1), off zero, nearly
one color and one color (limit 3), and the time as a multiple of ``affine``:

============================ =========== =========== =========== ============
numbers to a group           ``affine``  ``native``  centered    ``moments``
============================ =========== =========== =========== ============
4 channels, 28 x 28 = 3136   1.7, 1      2.5, 2.2    1.5, 1.2    0.1, 2.2
8 channels, 28 x 28 = 6272   1.6, 1      1.5, 2.2    1.0, 1.2    0.1, 2.1
4 channels, 40 x 40 = 6400   3.9, 1                  2.7, 1.3    0.1, 2.1
4 channels, 112 x 112        9.6, 1      17, 2.7     6.2, 1.5    0.1, 2.0
1 channel, 7 x 7             3.4, 1                  0.4, 1.1    4.7, 1.8
1 channel, 14 x 14           9.9, 1      249, 2.0    0.2, 1.2    3.6, 1.9
1 channel, 56 x 56           166, 1      395, 2.6    0.1, 1.4    14, 2.1
1 channel, 224 x 224         2530, 1     5765, 2.3   0.1, 1.3    2.7, 1.9
============================ =========== =========== =========== ============

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

#: Numbers to a group of several channels up to which one InstanceNormalization is exact enough.
_MAX_IN_A_GROUP = 6272
#: Numbers to a group of one channel up to which it is.
MAX_IN_A_CHANNEL = 16


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


def instance_norm_of_centered(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    """InstanceNormalization of x - mean: exact where all numbers of a channel are nearly equal."""
    centered = op.Sub(x, op.ReduceMean(x, ints(*range(2, len(x.shape)))))
    num_channels = _num_channels(x)
    scale = full(x, 1.0, num_channels) if weight is None else weight
    shift = full(x, 0.0, num_channels) if bias is None else bias
    return op.InstanceNormalization(centered, scale, shift, epsilon=float(eps))


def _mean_of_groups(x: Any, num_groups: int, *, squared: bool = False) -> Any:
    """[N, C, 1, ...]: each channel has the mean of its group."""
    trailing = [1] * (len(x.shape) - 2)
    num_channels = _num_channels(x)
    size = num_channels // num_groups
    mean = mean_in_steps(x, range(2, len(x.shape)), squared=squared)
    grouped = op.Reshape(mean, ints(0, num_groups, size, *trailing))
    grouped = op.Expand(op.ReduceMean(grouped, ints(2)), ints(1, 1, size, *trailing))
    return op.Reshape(grouped, ints(0, num_channels, *trailing))


def _moments(
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """The formula as it stands, with means that are taken one axis after another."""
    if num_groups == _num_channels(x) and len(x.shape) > 2:
        return instance_norm_of_centered(x, weight, bias, eps)
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
    limit = MAX_IN_A_CHANNEL if num_groups == x.shape[1] else _MAX_IN_A_GROUP
    return why_inexact(x, range(1, len(x.shape)), limit * num_groups)


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
        translate=_moments,
        note="exact for large groups, and for images of one color",
    ),
)
