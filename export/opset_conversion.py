"""Opsets below the exporter's own, through the converter that comes with onnx.

``torch.onnx`` writes opset 18 and later. Asked for less it tries this converter too, before it
has simplified the graph, and where that fails delivers 18 without a word.
"""

from __future__ import annotations

import onnx
import onnx.version_converter
import onnx_ir as ir

from dlzoo.errors import OpsetError
from dlzoo.export.onnx_graph import checkable_proto
from dlzoo.export.trace_metadata import NAME_SCOPES

#: What the exporter's operators are written in.
LOWEST_NATIVE_OPSET = 18
#: The last one that the exporter's own converter knows (onnxscript 0.7).
HIGHEST_OPSET = 25
#: Before IR version 4, which came with opset 9, every weight had to be an input.
LOWEST_OPSET = 9


def convert_down(model: ir.Model, opset: int) -> ir.Model:
    """The same model in a lower opset; the weights are shared, not copied.

    Raises:
        OpsetError: the converter cannot, or what it made breaks ONNX's rules; the message names
            the lowest opset that works.
    """
    proto = checkable_proto(model)
    for node in proto.graph.node:
        # Its default; the converter forgets to remove it from the operators that lacked it.
        kept = [
            a for a in node.attribute if not (a.name == "noop_with_empty_axes" and a.i == 0)
        ]
        del node.attribute[:]
        node.attribute.extend(kept)
    try:
        converted = _converted(proto, opset)
    except _CannotConvertError as error:
        lowest = _lowest_opset(proto, opset)
        raise OpsetError(
            f"Opset {opset} cannot be delivered for this network: {error} The lowest that works "
            f"is {lowest}: use --opset {lowest}."
        ) from None
    return _with_weights(converted, model)


class _CannotConvertError(Exception):
    """The converter's reason, as a sentence."""


def _converted(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    for node in proto.graph.node:
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise _CannotConvertError(
                f"onnx's converter does not enter the subgraph of {node.op_type} {node.name!r}."
            )
    try:
        converted = onnx.version_converter.convert_version(proto, opset)
        onnx.checker.check_model(converted, full_check=True)
    except Exception as error:  # the converter raises bare RuntimeErrors, the checker its own
        text = str(error).split("Assertion")[-1].split("failed:")[-1].strip()
        first_line = next((line.strip() for line in text.splitlines() if line.strip()), "")
        reason = first_line.rstrip(".") or type(error).__name__
        raise _CannotConvertError(f"onnx's converter says: {reason}.") from None
    delivered = {o.domain: o.version for o in converted.opset_import}[""]
    if delivered != opset:
        raise _CannotConvertError(f"onnx's converter made opset {delivered} of it.")
    return converted


def _lowest_opset(proto: onnx.ModelProto, above: int) -> int:
    for opset in range(above + 1, LOWEST_NATIVE_OPSET):
        try:
            _converted(proto, opset)
        except _CannotConvertError:
            continue
        return opset
    return LOWEST_NATIVE_OPSET


def _with_weights(converted: onnx.ModelProto, model: ir.Model) -> ir.Model:
    """The converted graph with the original weights and module paths put back."""
    scopes = {
        node.name: node.metadata_props[NAME_SCOPES]
        for node in model.graph
        if NAME_SCOPES in node.metadata_props
    }
    result = ir.from_proto(converted)
    inputs = {str(value.name): value for value in result.graph.inputs}
    for name, value in model.graph.initializers.items():
        if name in inputs:
            inputs[name].const_value = value.const_value
            result.graph.initializers[name] = inputs[name]
    names = {str(value.name) for value in model.graph.inputs}
    user_inputs = [value for value in result.graph.inputs if value.name in names]
    result.graph.inputs.clear()
    result.graph.inputs.extend(user_inputs)
    for node in result.graph:
        # The converter drops metadata and keeps names.
        if node.name in scopes:
            node.metadata_props[NAME_SCOPES] = scopes[node.name]
    return result
