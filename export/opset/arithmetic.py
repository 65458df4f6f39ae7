"""Arithmetic of short whole numbers, which came late."""

from __future__ import annotations

import onnx_ir as ir

from dlzoo.export.opset.adapter import Rewrite, adapts

_SHORT = (ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16)


@adapts(14, "Add", "Sub", "Mul", "Div")
def calculate_in_int32(rewrite: Rewrite) -> None:
    """Sums, products and quotients of 8 and 16 bits in int32, and back: overflow is the same."""
    node = rewrite.node
    dtype = node.outputs[0].dtype
    if dtype not in _SHORT:
        return
    wide = []
    for index, value in enumerate(node.inputs):
        cast = rewrite.add(
            "Cast", [value], {"to": int(ir.DataType.INT32)}, name=f"wide_{index}", like=value
        )
        cast.type = ir.TensorType(ir.DataType.INT32)
        wide.append(cast)
    result = rewrite.add(node.op_type, wide, name="in_int32", like=node.outputs[0])
    result.type = ir.TensorType(ir.DataType.INT32)
    rewrite.replace_with("Cast", [result])
    node.attributes["to"] = ir.AttrInt64("to", int(dtype))
