"""InstanceNorm: ``gamma_c (x - mean_nc) / sqrt(var_nc + eps) + beta_c``: a group for each channel.

Where a channel is of one color nothing is left but the error of its mean, divided by sqrt(eps). A mean
is taken off before the operator there, which takes off what error that mean had.

Measured on ONNX Runtime 1.32, a CPU, one thread: the largest rho2 over N(0, 1), off zero, nearly one
color and one color (limit 3), and the time as a multiple of ``native``:

============== =========== =============== ====================
size           ``native``  ``decomposed``  formula, means by axis
============== =========== =============== ====================
7 x 7          4.6, 1      0.5, 1.2
14 x 14        9.9, 1      0.2, 1.3        3.6, 2.1
56 x 56        166, 1      0.1, 1.5        14, 2.7
224 x 224      2530, 1     0.1, 1.3        2.7, 2.8
============== =========== =============== ====================

Source:
    Ulyanov, Vedaldi & Lempitsky 2016, "Instance normalization", equation 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from dlzoo.export.lowering.onnx_operators import op
from dlzoo.export.lowering.operators.group_norm import (
    MAX_IN_A_CHANNEL,
    full,
    instance_norm_of_centered,
)
from dlzoo.export.lowering.operators.stepwise_mean import why_inexact
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator


def _normalize(
    by_input: Callable[..., Any],
    x: Any,
    weight: Any = None,
    bias: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    if use_input_stats:
        return by_input(x, weight, bias, float(eps))
    # With statistics of training it is batch normalization.
    return op.BatchNormalization(
        x, *_scale_and_shift(x, weight, bias), running_mean, running_var, epsilon=float(eps)
    )


def _scale_and_shift(x: Any, weight: Any, bias: Any) -> tuple[Any, Any]:
    return (
        full(x, 1.0, x.shape[1]) if weight is None else weight,
        full(x, 0.0, x.shape[1]) if bias is None else bias,
    )


def _native(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    return op.InstanceNormalization(x, *_scale_and_shift(x, weight, bias), epsilon=eps)


def _why_inexact(x: Any, *arguments: Any, **named: Any) -> str:
    use_input_stats = named.get(
        "use_input_stats", arguments[4] if len(arguments) > 4 else True
    )
    axes = range(2, len(x.shape))
    return why_inexact(x, axes, MAX_IN_A_CHANNEL) if use_input_stats else ""


add_operator(
    Operator(
        name="instance_norm",
        torch_operators=("aten.instance_norm.default",),
        formula="gamma_c (x - mean_nc) / sqrt(var_nc + eps) + beta_c",
    ),
    Lowering(
        operator="instance_norm",
        spelling="native",
        onnx=("InstanceNormalization",),
        translate=partial(_normalize, _native),
        inexact_for=_why_inexact,
        note="up to 16 numbers to a channel",
    ),
    Lowering(
        operator="instance_norm",
        spelling="decomposed",
        onnx=("ReduceMean", "Sub", "InstanceNormalization"),
        translate=partial(_normalize, instance_norm_of_centered),
        note="exact for images of one color",
    ),
)
