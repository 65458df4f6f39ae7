"""LogSigmoid: ``-ln(1 + exp(-x))``.

The exporter's own ``Log(Sigmoid(x))`` gives -87 or -inf from x = -88 down, where the answer is x, and
0 from x = 17 up, where it is ``-exp(-x)``. ``-softplus(-x)`` keeps both tails.

Source:
    Dugas et al. 2001, "Incorporating second-order functional knowledge for better option
    pricing", section 3 (softplus).
"""

from __future__ import annotations

from typing import Any

from dlzoo.export.lowering.onnx_operators import op
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator


def _softplus(x: Any) -> Any:
    return op.Neg(op.Softplus(op.Neg(x)))


add_operator(
    Operator(
        name="log_sigmoid",
        torch_operators=("aten.log_sigmoid.default",),
        formula="-ln(1 + exp(-x))",
    ),
    Lowering(
        operator="log_sigmoid",
        spelling="decomposed",
        onnx=("Neg", "Softplus"),
        translate=_softplus,
        note="exact in both tails",
    ),
)
