"""LayerNorm: ``gamma (x - mean) / sqrt(var + eps) + beta`` over the last axes.

Source:
    Ba, Kiros & Hinton 2016, "Layer normalization", equation 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from dlzoo.export.lowering.onnx_operators import constant, ints, op
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator


def _ones(x: ir.Value, shape: Sequence[int]) -> Any:
    assert x.dtype is not None
    return constant(np.ones(shape, x.dtype.numpy()))


def _native(
    x: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    scale = _ones(x, normalized_shape) if weight is None else weight
    y, _, _ = op.LayerNormalization(
        x, scale, bias, axis=-len(normalized_shape), epsilon=float(eps)
    )
    return y


def _moments(
    x: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    axes = ints(*range(-len(normalized_shape), 0))
    centered = op.Sub(x, op.ReduceMean(x, axes))
    variance = op.ReduceMean(op.Pow(centered, 2.0), axes)
    y = op.Div(centered, op.Sqrt(op.Add(variance, float(eps))))
    y = y if weight is None else op.Mul(y, weight)
    return y if bias is None else op.Add(y, bias)


add_operator(
    Operator(
        name="layer_norm",
        torch_operators=("aten.layer_norm.default",),
        formula="gamma (x - mean) / sqrt(var + eps) + beta",
    ),
    Lowering(
        operator="layer_norm",
        spelling="native",
        onnx=("LayerNormalization",),
        translate=_native,
        min_opset=17,
    ),
    Lowering(
        operator="layer_norm",
        spelling="decomposed",
        onnx=("ReduceMean", "Sub", "Pow", "Add", "Sqrt", "Div", "Mul"),
        translate=_moments,
        note="ONNX Runtime fuses it back to LayerNormalization",
    ),
)
