"""How each layer of a network came out in ONNX, read off the graph.

native       one ONNX node
decomposed   several
function     one node of domain dlzoo, whose body is in the file
contrib      one node of ONNX Runtime's own domain
folded       none: its parameters went into a neighbour's (BatchNorm into Conv)
removed      none: it does nothing in inference (Dropout), or it was never called
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from dlzoo.export.graph.trace_metadata import REWRITE_RULES, name_scopes
from dlzoo.export.lowering.registry import DOMAIN
from dlzoo.export.lowering.translation import (
    CHOSEN_OPERATOR,
    CHOSEN_REASON,
    CHOSEN_SPELLING,
)

_CONTAINERS = "torch.nn.modules.container"


@dataclass
class _Call:
    """One call of a layer: the module path, and the ONNX nodes that it became."""

    layer: str
    module: str
    has_parameters: bool
    op_types: list[str] = field(default_factory=list)
    #: Where there was a choice: the operator, the spelling that was taken, and why.
    choice: tuple[tuple[str, str], ...] = ()

    @property
    def spelling(self) -> str:
        if not self.op_types:
            return "folded" if self.has_parameters else "removed"
        if len(self.op_types) > 1:
            return "decomposed"
        domain, _, _ = self.op_types[0].rpartition("::")
        return {"": "native", DOMAIN: "function"}.get(domain, "contrib")


def record_lowering(
    module: nn.Module, program: torch.export.ExportedProgram, model: ir.Model
) -> tuple[dict[str, Any], ...]:
    """One row per way in which a kind of layer is spelled.

    A layer is a module without children, or an operator that a module's own code calls.

    Args:
        module: the network.
        program: what was traced from it and then translated, operator by operator.
        model: the ONNX graph, before its metadata is dropped.

    Returns:
        Rows with ``layer``, ``spelling``, ``onnx`` (the kinds of nodes, in graph order),
        ``num_nodes`` (of one call), ``count`` (of calls) and ``modules`` (their paths); where
        there was a choice of spellings also ``operator``, ``lowering`` (the one taken, as in
        ``decomposed:exp``) and ``reason``.
    """
    calls = _calls_of(module, program)
    traced = {node.name: node for node in program.graph.nodes}
    for node in model.graph:
        name = (name_scopes(node) or [""])[-1]
        if "FuseBatchNorm" in node.metadata_props.get(REWRITE_RULES, ""):
            # The fused node carries the norm's name; it is the convolution that is left.
            name = str(traced[name].args[0]) if name in traced else name
        if name in calls:
            domain = f"{node.domain}::" if node.domain else ""
            calls[name].op_types.append(f"{domain}{node.op_type}")
            calls[name].choice = _choice_on(node) or calls[name].choice

    rows: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for call in {id(call): call for call in calls.values()}.values():
        onnx = tuple(dict.fromkeys(call.op_types))
        rows[call.layer, call.spelling, onnx, len(call.op_types), call.choice].append(
            call.module
        )
    for path, layer in _modules_without_calls(module, calls):
        rows[layer, "removed", (), 0, ()].append(path)
    return tuple(
        {
            "layer": layer,
            "spelling": spelling,
            "onnx": list(onnx),
            "num_nodes": num_nodes,
            "count": len(paths),
            "modules": list(dict.fromkeys(paths)),
            **dict(choice),
        }
        for (layer, spelling, onnx, num_nodes, choice), paths in sorted(rows.items())
    )


def _choice_on(node: ir.Node) -> tuple[tuple[str, str], ...]:
    """What the translation left on a node, as items of a row."""
    kept = node.metadata_props
    if CHOSEN_OPERATOR not in kept:
        return ()
    return (
        ("operator", kept[CHOSEN_OPERATOR]),
        ("lowering", kept[CHOSEN_SPELLING]),
        ("reason", kept[CHOSEN_REASON]),
    )


def _is_layer(module: nn.Module) -> bool:
    """Whether what happens inside counts as one layer."""
    home = type(module).__module__
    is_torchs_own = home.startswith("torch.nn.modules") and home != _CONTAINERS
    return is_torchs_own or next(module.children(), None) is None


def _calls_of(module: nn.Module, program: torch.export.ExportedProgram) -> dict[str, _Call]:
    """The call that each traced operator belongs to, by the operator's name in the trace."""
    modules = dict(module.named_modules())
    by_module_call: dict[str, _Call] = {}
    calls: dict[str, _Call] = {}
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if node.op != "call_function" or not stack:
            continue
        key, (path, _) = list(stack.items())[-1]
        owner = modules.get(path.split("@")[0])
        if owner is not None and _is_layer(owner):
            if key not in by_module_call:
                has_parameters = next(owner.parameters(recurse=False), None) is not None
                by_module_call[key] = _Call(type(owner).__name__, path, has_parameters)
            calls[node.name] = by_module_call[key]
        elif isinstance(node.meta.get("val"), torch.Tensor):
            # aten.gelu.default, or a plain Python function's name.
            parts = str(node.target).split(".")
            operator = parts[1] if len(parts) == 3 else parts[0]
            calls[node.name] = _Call(operator.strip("_"), path, has_parameters=False)
    return calls


def _modules_without_calls(
    module: nn.Module, calls: dict[str, _Call]
) -> list[tuple[str, str]]:
    """Layers that left nothing in the trace; the parts of a layer are not layers."""
    called = {call.module.split("@")[0] for call in calls.values()}
    silent: list[tuple[str, str]] = []

    def visit(path: str, child: nn.Module) -> None:
        if _is_layer(child):
            if path not in called:
                silent.append((path, type(child).__name__))
            return
        for name, grandchild in child.named_children():
            visit(f"{path}.{name}" if path else name, grandchild)

    visit("", module)
    return silent
