"""``exp(x) - 1``, exact where x is small.

The exporter's own ``Exp(x) - 1`` cancels: all of x below 6e-8 is lost. ``2 exp(x/2) sinh(x/2)`` is
the same number without a difference. It overflows where exp(x) - 1 does not, so that it stands for
|x| < 1 alone; beyond, a difference from 1 loses two bits at most.

Source:
    ``sinh(z) = (exp(z) - exp(-z)) / 2`` with z = x/2.
"""

from __future__ import annotations

from typing import Any

from dlzoo.export.lowering.onnx_operators import op
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator


def _sinh(x: Any) -> Any:
    half = op.Mul(x, 0.5)
    small = op.Mul(op.Mul(op.Exp(half), op.Sinh(half)), 2.0)
    return op.Where(op.Less(op.Abs(x), 1.0), small, op.Sub(op.Exp(x), 1.0))


add_operator(
    Operator(name="expm1", torch_operators=("aten.expm1.default",), formula="exp(x) - 1"),
    Lowering(
        operator="expm1",
        spelling="decomposed",
        onnx=("Mul", "Exp", "Sinh", "Abs", "Less", "Sub", "Where"),
        translate=_sinh,
        note="exact for small x",
    ),
)
