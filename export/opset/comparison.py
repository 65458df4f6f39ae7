"""Comparisons that include equality, and casts to another tensor's type: both came late."""

from __future__ import annotations

import onnx_ir as ir

from dlzoo.export.opset.adapter import Rewrite, adapts


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


@adapts(12, "Max", "Min")
def select_whole_numbers(rewrite: Rewrite) -> None:
    """``Min(a, b)`` as ``Where(a < b, a, b)``: Max and Min were for floats alone."""
    node = rewrite.node
    first, *others = (value for value in node.inputs if value is not None)
    dtype = node.outputs[0].dtype or first.dtype
    if dtype is None or dtype.is_floating_point() or not others:
        return
    compare = "Less" if node.op_type == "Min" else "Greater"
    kept = first
    for number, other in enumerate(others):
        is_kept = rewrite.add(compare, [kept, other], name=f"keeps_{number}")
        is_kept.type = ir.TensorType(ir.DataType.BOOL)
        if other is others[-1]:
            rewrite.replace_with("Where", [is_kept, kept, other])
        else:
            like = node.outputs[0]
            kept = rewrite.add("Where", [is_kept, kept, other], name=f"of_{number}", like=like)
            kept.shape = None


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
