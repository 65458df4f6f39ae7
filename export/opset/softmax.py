"""Softmax along one axis, where it once ran over all axes from one on."""

from __future__ import annotations

import onnx_ir as ir

from dlzoo.export.opset.adapter import Rewrite, adapts


@adapts(13, "Softmax", "LogSoftmax", "Hardmax")
def move_axis_to_the_end(rewrite: Rewrite) -> None:
    """The last axis means the same in both; another one is transposed there and back."""
    data = rewrite.input(0)
    rank = rewrite.rank(data)
    axis = rewrite.attribute("axis", -1) % rank
    node = rewrite.node
    node.attributes["axis"] = ir.AttrInt64("axis", rank - 1)
    if axis == rank - 1:
        return
    order = [*range(rank)]
    order[axis], order[-1] = order[-1], order[axis]
    swapped = rewrite.add("Transpose", [data], {"perm": order}, name="axis_last")
    kind = node.op_type
    result = rewrite.add(kind, [swapped], {"axis": rank - 1}, name="of_last_axis")
    for value in (swapped, result):
        value.type = node.outputs[0].type
    rewrite.replace_with("Transpose", [result])
    rewrite.set_ints("perm", order)
