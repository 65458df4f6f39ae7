"""``ln(1 + x)``, exact where x is small.

The exporter's own ``Log(x + 1)`` loses what x + 1 rounds off: all of x below 6e-8. With u = fl(1 + x)
what was lost is x - (u - 1), exactly, and ``ln(1 + x) = ln(u) + (x - (u - 1)) / u`` to first order,
which is all that float32 holds.

Source:
    Higham 2002, "Accuracy and stability of numerical algorithms", problem 1.5.
"""

from __future__ import annotations

from typing import Any

from dlzoo.export.lowering.onnx_operators import op
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator


def log1p(x: Any) -> Any:
    """``ln(1 + x)``, also for -1 and infinity."""
    u = op.Add(x, 1.0)
    kept = op.Sub(u, 1.0)
    # Where nothing was lost there is nothing to add; at -1 it would be 0 / 0, at infinity inf - inf.
    lost = op.Where(op.Equal(kept, x), 0.0, op.Div(op.Sub(x, kept), u))
    return op.Add(op.Log(u), lost)


add_operator(
    Operator(name="log1p", torch_operators=("aten.log1p.default",), formula="ln(1 + x)"),
    Lowering(
        operator="log1p",
        spelling="decomposed",
        onnx=("Add", "Sub", "Equal", "Div", "Where", "Log"),
        translate=log1p,
        note="exact for small x",
    ),
)
