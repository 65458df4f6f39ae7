"""GELU: ``x (1 + erf(x / sqrt(2))) / 2``, and its approximation by tanh.

ONNX Runtime fuses ``(x (1 + erf(...))) / 2`` to one kernel, but not ``x ((1 + erf(...)) / 2)``.

Source:
    Hendrycks & Gimpel 2016, "Gaussian error linear units", section 2.
"""

from __future__ import annotations

import math
from typing import Any

from dlzoo.export.lowering.onnx_operators import op, op20
from dlzoo.export.lowering.own_domain import call_contrib
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator

#: The weight of the cubic term. Source: the paper, section 2.
_CUBIC = 0.044715


def _is_tanh(x: Any, *, approximate: str = "none") -> bool:
    return approximate == "tanh"


def _is_erf(x: Any, *, approximate: str = "none") -> bool:
    return approximate == "none"


def _native(x: Any, *, approximate: str = "none") -> Any:
    return op20.Gelu(x, approximate=approximate)


def _erf(x: Any, *, approximate: str = "none") -> Any:
    one_plus_erf = op.Add(op.Erf(op.Div(x, math.sqrt(2.0))), 1.0)
    return op.Mul(op.Mul(x, one_plus_erf), 0.5)


def _sigmoid(x: Any, *, approximate: str = "none") -> Any:
    # (1 + tanh(z)) / 2 = sigmoid(2 z), and x x costs a tenth of what Pow does.
    scale = 2.0 * math.sqrt(2.0 / math.pi)
    inner = op.Add(op.Mul(op.Mul(x, x), scale * _CUBIC), scale)
    return op.Mul(x, op.Sigmoid(op.Mul(x, inner)))


def _tanh(x: Any, *, approximate: str = "none") -> Any:
    inner = op.Mul(x, op.Add(op.Mul(op.Mul(x, x), _CUBIC), 1.0))
    one_plus_tanh = op.Add(op.Tanh(op.Mul(inner, math.sqrt(2.0 / math.pi))), 1.0)
    return op.Mul(op.Mul(x, one_plus_tanh), 0.5)


def _contrib_gelu(x: Any, *, approximate: str = "none") -> Any:
    return call_contrib("Gelu", x)


def _contrib_fast_gelu(x: Any, *, approximate: str = "none") -> Any:
    return call_contrib("FastGelu", x)


add_operator(
    Operator(
        name="gelu",
        torch_operators=("aten.gelu.default",),
        formula="x (1 + erf(x / sqrt(2))) / 2",
        is_meant=_is_erf,
    ),
    Lowering(
        operator="gelu", spelling="native", onnx=("Gelu",), translate=_native, min_opset=20
    ),
    Lowering(
        operator="gelu",
        spelling="decomposed",
        onnx=("Div", "Erf", "Add", "Mul"),
        translate=_erf,
        note="the order of factors that ONNX Runtime fuses",
    ),
    Lowering(
        operator="gelu",
        spelling="contrib",
        onnx=("com.microsoft::Gelu",),
        translate=_contrib_gelu,
    ),
)

add_operator(
    Operator(
        name="gelu_tanh",
        torch_operators=("aten.gelu.default",),
        formula="x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2",
        is_meant=_is_tanh,
    ),
    Lowering(
        operator="gelu_tanh",
        spelling="native",
        onnx=("Gelu",),
        translate=_native,
        min_opset=20,
    ),
    Lowering(
        operator="gelu_tanh",
        spelling="decomposed",
        form="tanh",
        onnx=("Mul", "Add", "Tanh"),
        translate=_tanh,
    ),
    Lowering(
        operator="gelu_tanh",
        spelling="decomposed",
        form="sigmoid",
        onnx=("Mul", "Add", "Sigmoid"),
        translate=_sigmoid,
    ),
    Lowering(
        operator="gelu_tanh",
        spelling="contrib",
        onnx=("com.microsoft::FastGelu",),
        translate=_contrib_fast_gelu,
    ),
)
