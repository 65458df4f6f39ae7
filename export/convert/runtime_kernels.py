"""Refuse, when a graph is made, what ONNX Runtime would refuse when it is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx.defs
import onnx_ir as ir

from dlzoo.errors import ExportError
from dlzoo.export.graph.trace_metadata import name_scopes
from dlzoo.export.lowering.kernels import has_kernel_of_types

#: ONNX Runtime puts casts around nodes that lack a kernel for these.
_CAST_AUTOMATICALLY = (ir.DataType.FLOAT16,)
_REMEDIES = {
    ir.DataType.DOUBLE: "convert the network and its inputs to float32 with .float()",
    ir.DataType.BFLOAT16: "convert the network and its inputs to float32 with .float()",
}


def refuse_missing_kernels(model: ir.Model) -> None:
    """Check that the CPU provider has a kernel for every node, by its types.

    Raises:
        ExportError: it has none; operator, type and layer are named, and what helps.
    """
    opset = model.opset_imports[""]
    for graph in model.graphs():
        for node in graph:
            dtype = _dtype_without_kernel(node, opset) if node.domain == "" else None
            if dtype is None:
                continue
            *modules, call = name_scopes(node) or ["", node.op_type]
            layer = f"module {modules[-1]!r}" if modules and modules[-1] else "forward"
            raise ExportError(
                f"ONNX Runtime's CPU provider has no {node.op_type} of {_name(dtype)} at opset {opset}, "
                f"which {call} in {layer} becomes. To export it, "
                f"{_REMEDIES.get(dtype, 'convert its input to float32 or int64 before that layer')}."
            )


def _name(dtype: ir.DataType) -> str:
    return {"DOUBLE": "float64", "FLOAT": "float32"}.get(dtype.name, dtype.name.lower())


def _dtype_without_kernel(node: ir.Node, opset: int) -> ir.DataType | None:
    """The type for which there is no kernel; None where there is one, or it is not known."""
    # Typed as Any: onnx's stubs lack has_function.
    schema: Any = onnx.defs.get_schema(node.op_type, opset)
    if schema.has_function or schema.has_context_dependent_function:
        return None  # written out as other nodes
    dtypes = dict(
        (
            *_by_parameter(node.inputs, schema.inputs),
            *_by_parameter(node.outputs, schema.outputs),
        )
    )
    types = {
        name: f"tensor({dtype.name.lower()})"
        for name, dtype in dtypes.items()
        if dtype not in _CAST_AUTOMATICALLY
    }
    if has_kernel_of_types(node.op_type, node.domain, schema.since_version, types):
        return None
    suspects = [
        name
        for name in types
        if has_kernel_of_types(
            node.op_type,
            node.domain,
            schema.since_version,
            {other: known for other, known in types.items() if other != name},
        )
    ]
    return dtypes[suspects[0]] if suspects else next(iter(dtypes.values()), None)


def _by_parameter(
    values: Iterable[ir.Value | None], formals: Any
) -> Iterable[tuple[str, ir.DataType]]:
    for position, value in enumerate(values):
        if formals and value is not None and isinstance(value.type, ir.TensorType):
            formal = formals[min(position, len(formals) - 1)]
            yield formal.type_str, value.type.dtype
            yield formal.name, value.type.dtype
