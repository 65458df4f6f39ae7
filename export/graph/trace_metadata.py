"""What the exporter leaves in a graph beside the graph: keep module paths, drop the rest.

``torch.onnx`` writes the call stack of every node (absolute paths of the machine), its traced
source text and the whole signature. None of that belongs into a file that must come out the same
on every machine.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import onnx_ir as ir

#: Where a node comes from: the paths of the modules around it and the traced call's name, as a
#: Python list: "['', 'features', 'features.0', 'conv2d']". torch.onnx's own key, kept as it is.
NAME_SCOPES = "pkg.torch.onnx.name_scopes"
#: Which of the exporter's rewrites made a node.
REWRITE_RULES = "pkg.onnxscript.rewriter.rule_name"


def name_scopes(node: ir.Node) -> list[str]:
    """Module paths from the outermost in, then the traced call's name; empty where unknown."""
    text = node.metadata_props.get(NAME_SCOPES)
    return [str(scope) for scope in ast.literal_eval(text)] if text else []


def _all_graphs(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    yield from model.graphs()
    yield from model.functions.values()


def clear_trace_metadata(model: ir.Model) -> None:
    """Drop all metadata and doc strings, at every place that can hold them, but ``NAME_SCOPES``."""
    model.metadata_props.clear()
    model.doc_string = None
    for graph in _all_graphs(model):
        graph.metadata_props.clear()
        graph.doc_string = None
        values = list(graph.inputs)
        if isinstance(graph, ir.Graph):
            values += graph.initializers.values()
        for node in graph:
            scopes = node.metadata_props.get(NAME_SCOPES)
            node.metadata_props.clear()
            if scopes:
                node.metadata_props[NAME_SCOPES] = scopes
            node.doc_string = None
            for attribute in node.attributes.values():
                attribute.doc_string = None
            values += node.outputs
        for value in values:
            value.metadata_props.clear()
            value.doc_string = None
            if isinstance(value.const_value, ir.serde.TensorProtoTensor):
                # Parts of the exporter's own functions, which cannot be changed in place.
                held = value.const_value
                value.const_value = ir.Tensor(held.numpy(), dtype=held.dtype, name=held.name)
            if value.const_value is not None:
                value.const_value.doc_string = None
                value.const_value.metadata_props.clear()
