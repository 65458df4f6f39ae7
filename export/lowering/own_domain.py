"""Nodes of other domains than ONNX's: our own functions, and ONNX Runtime's operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx.defs
import onnx.parser
import onnx_ir as ir
from onnxscript.values import Op, Opset

from dlzoo.export.lowering.registry import DOMAIN, DOMAIN_VERSION

_ATTRIBUTE_TYPES = {
    int: onnx.defs.OpSchema.AttrType.INT,
    float: onnx.defs.OpSchema.AttrType.FLOAT,
    str: onnx.defs.OpSchema.AttrType.STRING,
}


def call_function(name: str, *inputs: Any, **attributes: Any) -> Any:
    """A node of domain ``dlzoo``, for the ``translate`` of a function or custom operator."""
    return node_of(DOMAIN, name, len(inputs), attributes)(*inputs, **attributes)


def call_contrib(name: str, *inputs: Any, **attributes: Any) -> Any:
    """A node of ONNX Runtime's own domain."""
    return node_of("com.microsoft", name, len(inputs), attributes)(*inputs, **attributes)


def node_of(
    domain: str, name: str, num_inputs: int, attributes: dict[str, Any]
) -> Callable[..., Any]:
    """An operator that ``onnx`` does not know: floats in, one tensor of the same type out."""
    parameter = onnx.defs.OpSchema.FormalParameter
    floats = ["tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)"]
    schema = onnx.defs.OpSchema(
        name,
        domain,
        DOMAIN_VERSION,
        inputs=[parameter(f"x{number}", "T") for number in range(num_inputs)],
        outputs=[parameter("y", "T")],
        type_constraints=[("T", floats, "")],
        attributes=[
            onnx.defs.OpSchema.Attribute(key, _ATTRIBUTE_TYPES[type(value)])
            for key, value in attributes.items()
        ],
    )
    operator: Callable[..., Any] = Op(Opset(domain, DOMAIN_VERSION), name, op_schema=schema)
    return operator


def function_from_text(text: str, opset: int) -> ir.Function:
    """A FunctionProto from ONNX's text format, its body in the model's opset.

    >>> print(function_from_text("Half (x) => (y) { y = Identity (x) }", 17).name)
    Half
    """
    head = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>'
    return ir.serde.deserialize_function(onnx.parser.parse_function(f"{head}\n{text}"))
