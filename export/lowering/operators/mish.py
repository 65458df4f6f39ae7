"""Mish: ``x tanh(ln(1 + exp(x)))``.

With e = exp(x) it is ``x / (1 + 2 / (e (e + 2)))``, which neither overflows nor cancels: e = inf
gives x, e = 0 gives -0. With s = sigmoid(-x) it is ``x (1 - s^2) / (1 + s^2)``, whose numerator
loses what is left of the tail below x = -10.

Source:
    Misra 2019, "Mish: a self regularized non-monotonic activation function", equation 1.
"""

from __future__ import annotations

from typing import Any

from dlzoo.export.lowering.onnx_operators import op
from dlzoo.export.lowering.own_domain import call_function
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator


def _native(x: Any) -> Any:
    return op.Mish(x)


def _exp(x: Any) -> Any:
    e = op.Exp(x)
    return op.Div(x, op.Add(op.Div(2.0, op.Mul(e, op.Add(e, 2.0))), 1.0))


def _sigmoid(x: Any) -> Any:
    s = op.Sigmoid(op.Neg(x))
    s2 = op.Mul(s, s)
    return op.Div(op.Mul(x, op.Sub(1.0, s2)), op.Add(s2, 1.0))


def _softplus(x: Any) -> Any:
    return op.Mul(x, op.Tanh(op.Softplus(x)))


def _function(x: Any) -> Any:
    return call_function("Mish", x)


add_operator(
    Operator(
        name="mish",
        torch_operators=("aten.mish.default",),
        formula="x tanh(ln(1 + exp(x)))",
    ),
    Lowering(
        operator="mish", spelling="native", onnx=("Mish",), translate=_native, min_opset=18
    ),
    Lowering(
        operator="mish",
        spelling="decomposed",
        form="exp",
        onnx=("Exp", "Add", "Mul", "Div"),
        translate=_exp,
        note="exact to the last few bits in the negative tail too",
    ),
    Lowering(
        operator="mish",
        spelling="decomposed",
        form="sigmoid",
        onnx=("Neg", "Sigmoid", "Mul", "Sub", "Add", "Div"),
        translate=_sigmoid,
    ),
    Lowering(
        operator="mish",
        spelling="decomposed",
        form="softplus",
        onnx=("Softplus", "Tanh", "Mul"),
        translate=_softplus,
    ),
    Lowering(
        operator="mish",
        spelling="function",
        onnx=("dlzoo::Mish",),
        translate=_function,
        note="one node; runs as a kernel where a library registers dlzoo::Mish",
    ),
)
