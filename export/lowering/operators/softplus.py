"""Softplus: ``ln(1 + exp(beta x)) / beta``.

PyTorch gives x itself where beta x is above ``threshold``, 20 where nothing is said. There the
two are the same float32 number, so the native operator needs no Where around it.

Source:
    Dugas et al. 2001, "Incorporating second-order functional knowledge for better option
    pricing", section 3.
"""

from __future__ import annotations

from typing import Any

from dlzoo.export.lowering.onnx_operators import op
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator

#: ln(1 + exp(x)) - x = exp(-x) is below half a unit in the last place of float32 from here on.
_SAME_FROM = 16.0


def _refuses_low_threshold(x: Any, beta: float = 1.0, threshold: float = 20.0) -> str:
    return f"has no threshold of {threshold}" if threshold < _SAME_FROM else ""


def _native(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    if beta == 1.0:
        return op.Softplus(x)
    return op.Div(op.Softplus(op.Mul(x, float(beta))), float(beta))


def _where(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    scaled = x if beta == 1.0 else op.Mul(x, float(beta))
    value = _native(x, beta, threshold)
    return op.Where(op.Greater(scaled, float(threshold)), x, value)


def _log(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    scaled = x if beta == 1.0 else op.Mul(x, float(beta))
    small = op.Log(op.Add(op.Exp(op.Neg(op.Abs(scaled))), 1.0))
    value = op.Add(op.Relu(scaled), small)
    return value if beta == 1.0 else op.Div(value, float(beta))


add_operator(
    Operator(
        name="softplus",
        torch_operators=("aten.softplus.default",),
        formula="ln(1 + exp(beta x)) / beta",
    ),
    Lowering(
        operator="softplus",
        spelling="native",
        onnx=("Softplus",),
        translate=_native,
        refuses=_refuses_low_threshold,
    ),
    Lowering(
        operator="softplus",
        spelling="decomposed",
        form="where",
        onnx=("Softplus", "Greater", "Where"),
        translate=_where,
        note="the exporter's own; any threshold",
    ),
    Lowering(
        operator="softplus",
        spelling="decomposed",
        form="log",
        onnx=("Abs", "Neg", "Exp", "Add", "Log", "Relu"),
        translate=_log,
        refuses=_refuses_low_threshold,
        note="loses the tail below x = -15",
    ),
)
