"""Which axes of a graph are open, and for which sizes it holds."""

from __future__ import annotations

from collections.abc import Container, Mapping

import onnx_ir as ir
import torch
from torch import nn

from dlzoo.errors import DynamicAxisError
from dlzoo.runtime.bundle.manifest_fields import AxisRange

#: The symbol of each dynamic axis: ``{input: {axis: symbol}}``.
DynamicAxes = Mapping[str, Mapping[int, str]]


def dynamic_ranges(
    model: ir.Model,
    program: torch.export.ExportedProgram,
    dynamic_axes: DynamicAxes,
) -> dict[str, AxisRange]:
    """The sizes that the graph allows for each symbol."""
    placeholders = {
        node.name: node for node in program.graph.nodes if node.op == "placeholder"
    }
    traced_names = program.graph_signature.user_inputs
    ranges: dict[str, AxisRange] = {}
    for value, traced_name in zip(model.graph.inputs, traced_names, strict=True):
        name = str(value.name)
        for axis, symbol in dynamic_axes.get(name, {}).items():
            assert value.shape is not None
            if isinstance(value.shape[axis], int):
                raise DynamicAxisError(
                    f"Axis {axis} ({symbol}) of input {name!r} was to be dynamic, but the "
                    f"network holds for {value.shape[axis]} only: its code uses that size as a "
                    "constant. Export it with that size fixed, or take the size from x.shape."
                )
            size = placeholders[str(traced_name)].meta["val"].shape[axis]
            found = program.range_constraints.get(size.node.expr)
            lower = max(1, int(found.lower)) if found else 1
            # The upper bound is a sympy integer, or one of several infinities.
            upper = int(found.upper) if found and found.upper.is_Integer else None
            ranges[symbol] = AxisRange(symbol=symbol, min=lower, max=upper, proved=())
    return ranges


def refuse_adaptive_pooling(
    module: nn.Module, program: torch.export.ExportedProgram, lowered: Container[str]
) -> None:
    """Refuse windows that depend on an open image size.

    The exporter computes them from the example's size and writes them down as constants: the
    graph then gives wrong shapes at other sizes, without a word.

    Args:
        module: the network.
        program: its trace.
        lowered: operators that are translated for any size, such as
            ``aten._adaptive_avg_pool2d.default``.

    Raises:
        DynamicAxisError: there is such a pooling; its module is named.
    """
    for node in program.graph.nodes:
        operator = str(node.meta.get("original_aten", node.target))
        stack = node.meta.get("nn_module_stack") or {}
        path, layer = next(reversed(stack.values()), ("", ""))
        is_adaptive = "adaptive" in operator or "Adaptive" in str(layer)
        # Pooling to 1 x 1 is a mean over whatever size there is; what has a lowering of ours
        # computes its windows from the size.
        if str(node.target) in lowered or "mean" in str(node.target):
            continue
        if is_adaptive and _has_open_size(node):
            where = f"module {path!r}" if path else "its forward"
            raise DynamicAxisError(
                f"The image size of {type(module).__name__} cannot be dynamic: the adaptive "
                f"pooling in {where} has windows that depend on it, which ONNX cannot express. "
                "Export it with one size: `image_size=H,W`."
            )


def _has_open_size(node: torch.fx.Node) -> bool:
    """Whether a tensor that goes in or comes out has an open size beyond its batch."""
    values = [other.meta.get("val") for other in (node, *node.all_input_nodes)]
    return any(
        not isinstance(size, int)
        for value in values
        if isinstance(value, torch.Tensor)
        for size in value.shape[1:]
    )
