"""Give the outputs of a graph the network's own names, whatever the values inside are called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from dlzoo.errors import ExportError


def provisional_names(num_outputs: int) -> list[str]:
    """Names for the exporter that no value of a network has.

    The exporter names outputs without a look at the other values, which it calls after their
    operators: two values called ``mean`` make no valid graph.
    """
    return [f"dlzoo.output_{number}" for number in range(num_outputs)]


def name_outputs(model: ir.Model, names: Sequence[str]) -> None:
    """Name the outputs, in order; inner values and weights of these names get others.

    Raises:
        ExportError: an input has one of the names. Both belong to the user.
    """
    graph = model.graph
    for position, value in enumerate(graph.outputs):
        if (
            value.is_graph_input()
            or value.is_initializer()
            or value in graph.outputs[:position]
        ):
            graph.outputs[position] = _copy_of(graph, value)
    for value in graph.inputs:
        if value.name in names:
            raise ExportError(
                f"Output {value.name!r} has the name of an input, and in an ONNX graph a name is "
                "one value. Return it under another key, or rename the argument of forward."
            )
    outputs = set(graph.outputs)
    inner = [value for value in _all_values(model) if value not in outputs]
    taken = {str(value.name) for value in inner} | set(names)
    for value in inner:
        if value.name in names:
            value.name = _free_name(str(value.name), taken)
            taken.add(value.name)
    for value, name in zip(graph.outputs, names, strict=True):
        value.name = name


def _copy_of(graph: ir.Graph, value: ir.Value) -> ir.Value:
    node = ir.node("Identity", [value])
    node.name = f"{value.name}_as_output"
    copy = node.outputs[0]
    copy.type, copy.shape = value.type, value.shape
    copy.name = f"{value.name}_as_output"
    producer = value.producer()
    if producer is not None:
        node.metadata_props.update(producer.metadata_props)
    graph.append(node)
    return copy


def _all_values(model: ir.Model) -> Iterator[ir.Value]:
    """Every value of the main graph and of the graphs inside its nodes."""
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
        for node in graph:
            yield from node.outputs


def _free_name(name: str, taken: set[str]) -> str:
    number = 0
    free = f"{name}_inner"
    while free in taken:
        number += 1
        free = f"{name}_inner_{number}"
    return free
