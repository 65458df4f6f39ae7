"""Hardswish: ``x min(max(0, x + 3), 6) / 6``.

Source:
    Howard et al. 2019, "Searching for MobileNetV3", section 5.2.
"""

from __future__ import annotations

from typing import Any

from dlzoo.export.lowering.onnx_operators import op
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator


def _native(x: Any) -> Any:
    return op.HardSwish(x)


def _hard_sigmoid(x: Any) -> Any:
    return op.Mul(x, op.HardSigmoid(x, alpha=1.0 / 6.0, beta=0.5))


add_operator(
    Operator(
        name="hardswish",
        torch_operators=("aten.hardswish.default",),
        formula="x min(max(0, x + 3), 6) / 6",
    ),
    Lowering(
        operator="hardswish",
        spelling="native",
        onnx=("HardSwish",),
        translate=_native,
        min_opset=14,
    ),
    Lowering(
        operator="hardswish",
        spelling="decomposed",
        onnx=("HardSigmoid", "Mul"),
        translate=_hard_sigmoid,
        note="what ONNX Runtime makes of the native one",
    ),
)
