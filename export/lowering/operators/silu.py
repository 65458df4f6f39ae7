"""SiLU, also called Swish: ``x / (1 + exp(-x))``.

ONNX Runtime fuses ``x sigmoid(x)`` to one kernel. Its sigmoid is exact to 6e-8 and not to a share
of its value, so that the tail below x = -15 is lost; ``x / (1 + exp(-x))`` keeps it.

Source:
    Ramachandran, Zoph & Le 2017, "Searching for activation functions" (beta = 1).
"""

from __future__ import annotations

from typing import Any

from dlzoo.export.lowering.onnx_operators import op, op24
from dlzoo.export.lowering.own_domain import call_contrib
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator


def _sigmoid(x: Any) -> Any:
    return op.Mul(x, op.Sigmoid(x))


def _exp(x: Any) -> Any:
    return op.Div(x, op.Add(op.Exp(op.Neg(x)), 1.0))


def _contrib(x: Any) -> Any:
    return call_contrib("QuickGelu", x, alpha=1.0)


def _native(x: Any) -> Any:
    return op24.Swish(x)


add_operator(
    Operator(name="silu", torch_operators=("aten.silu.default",), formula="x / (1 + exp(-x))"),
    Lowering(
        operator="silu",
        spelling="decomposed",
        form="sigmoid",
        onnx=("Sigmoid", "Mul"),
        translate=_sigmoid,
        note="the exporter's own; ONNX Runtime fuses it to QuickGelu",
    ),
    Lowering(
        operator="silu",
        spelling="decomposed",
        form="exp",
        onnx=("Neg", "Exp", "Add", "Div"),
        translate=_exp,
        note="exact in the negative tail too",
    ),
    Lowering(
        operator="silu",
        spelling="contrib",
        onnx=("com.microsoft::QuickGelu",),
        translate=_contrib,
    ),
    Lowering(
        operator="silu", spelling="native", onnx=("Swish",), translate=_native, min_opset=24
    ),
)
