"""Sums of exponentials in the logarithm: ``ln(exp(a) + exp(b))``, ``log2(2^a + 2^b)``, ``logcumsumexp``.

The exporter's own ``Log(Exp(a) + Exp(b))`` overflows from 89 up and is -inf from -104 down. With
the larger number taken out, ``max(a, b) + ln(1 + exp(-|a - b|))``, nothing does.

Source:
    Blanchard, Higham & Higham 2021, "Accurately computing the log-sum-exp and softmax functions",
    equation 1.3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dlzoo.export.lowering.onnx_operators import constant, ints, op
from dlzoo.export.lowering.operators.log1p import log1p
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator


def _minus_distance(a: Any, b: Any) -> Any:
    # Equal infinities have no difference.
    return op.Where(op.Equal(a, b), 0.0, op.Neg(op.Abs(op.Sub(a, b))))


def _logaddexp(a: Any, b: Any) -> Any:
    return op.Add(op.Max(a, b), log1p(op.Exp(_minus_distance(a, b))))


def _logaddexp2(a: Any, b: Any) -> Any:
    smaller = log1p(op.Exp(op.Mul(_minus_distance(a, b), math.log(2))))
    return op.Add(op.Max(a, b), op.Mul(smaller, 1 / math.log(2)))


def _refuses_open(x: Any, dim: int) -> str:
    return "" if isinstance(x.shape[dim], int) else "needs an axis of known size"


def _logcumsumexp(x: Any, dim: int) -> Any:
    """After step k each element holds the sum of the 2^k that end at it."""
    rank = len(x.shape)
    size, axis = x.shape[dim], dim % rank
    y, distance = x, 1
    while distance < size:
        pads = [0] * (2 * rank)
        pads[axis] = distance
        earlier = op.Slice(y, ints(0), ints(-distance), ints(axis))
        nothing = constant(np.array(-np.inf, x.dtype.numpy()))
        y = _logaddexp(y, op.Pad(earlier, ints(*pads), nothing))
        distance *= 2
    return op.Identity(x) if size <= 1 else y


add_operator(
    Operator(
        name="logaddexp",
        torch_operators=("aten.logaddexp.default",),
        formula="ln(exp(a) + exp(b))",
    ),
    Lowering(
        operator="logaddexp",
        spelling="decomposed",
        onnx=("Max", "Equal", "Sub", "Abs", "Neg", "Where", "Exp", "Add", "Div", "Log"),
        translate=_logaddexp,
        note="neither overflows nor loses the tail",
    ),
)
add_operator(
    Operator(
        name="logaddexp2",
        torch_operators=("aten.logaddexp2.default",),
        formula="log2(2^a + 2^b)",
    ),
    Lowering(
        operator="logaddexp2",
        spelling="decomposed",
        onnx=("Max", "Equal", "Sub", "Abs", "Neg", "Mul", "Where", "Exp", "Add", "Div", "Log"),
        translate=_logaddexp2,
        note="neither overflows nor loses the tail",
    ),
)
add_operator(
    Operator(
        name="logcumsumexp",
        torch_operators=("aten.logcumsumexp.default",),
        formula="ln of the sum of exp(x_j) over j <= i",
    ),
    Lowering(
        operator="logcumsumexp",
        spelling="decomposed",
        onnx=(
            *("Slice", "Pad", "Max", "Equal", "Sub", "Abs", "Neg", "Where", "Exp"),
            *("Add", "Div", "Log"),
        ),
        translate=_logcumsumexp,
        refuses=_refuses_open,
        note="along an axis of known size, in log2(size) steps",
    ),
)
