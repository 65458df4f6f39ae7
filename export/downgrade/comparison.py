"""Comparisons that include equality, and casts to another tensor's type: both came late."""

from __future__ import annotations

import onnx_ir as ir

from dlzoo.export.downgrade.adapter import Rewrite, adapts


@adapts(12, "GreaterOrEqual", "LessOrEqual")
def compare_twice(rewrite: Rewrite) -> None:
    """``a >= b`` as ``a > b or a == b``: NaN is neither."""
    node = rewrite.node
    strict = "Greater" if node.op_type == "GreaterOrEqual" else "Less"
    inputs = [rewrite.input(0), rewrite.input(1)]
    like = node.outputs[0]
    more = rewrite.add(strict, inputs, name="strictly", like=like)
    equal = rewrite.add("Equal", inputs, name="equally", like=like)
    rewrite.replace_with("Or", [more, equal])


@adapts(15, "CastLike")
def cast_to_known_type(rewrite: Rewrite) -> None:
    """The type is known when the graph is made."""
    like = rewrite.input(1)
    if like is None or like.dtype is None:
        raise rewrite.fail("came with opset 15, and the type to cast to is not known")
    data, dtype = rewrite.input(0), like.dtype
    rewrite.replace_with("Cast", [data])
    rewrite.node.attributes["to"] = ir.AttrInt64("to", int(dtype))


@adapts(14, "HardSwish")
def write_hard_swish_out(rewrite: Rewrite) -> None:
    """``x HardSigmoid(x / 6 + 1 / 2)``."""
    data = rewrite.input(0)
    gate = rewrite.add(
        "HardSigmoid",
        [data],
        {"alpha": 1.0 / 6.0, "beta": 0.5},
        name="gate",
        like=rewrite.node.outputs[0],
    )
    rewrite.replace_with("Mul", [data, gate])
