"""A network as ``torch.export`` traced it for the exporter: which operator made which value, where.

The exporter names the values of its graph after the operators that were traced.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.fx import Node

from dlzoo.export.convert.onnx_from_torch import trace_and_translate
from dlzoo.export.convert.tracing_state import without_chatter
from dlzoo.export.lowering.translation import LoweringPlan
from dlzoo.runtime.onnx_reader.onnx_nodes import OnnxNodes
from dlzoo.zoo.module_state import in_eval_mode

_FRAME = re.compile(r'File "(.+?)", line (\d+)')
_TORCH_FOLDER = str(Path(torch.__file__).parent)


@dataclass(frozen=True, kw_only=True)
class TracedValue:
    """A value of the traced program: the operator that made it, and where in the network.

    ``source_line`` is the line of the module's own code, as ``package/file.py:12``; ``arguments``
    are the names of the values that the operator takes, weights left out.
    """

    name: str
    operator: str
    module_path: str
    source_line: str
    arguments: tuple[str, ...]


class TracedNetwork:
    """The traced program and its values.

    Attributes:
        values: every value that is computed from the inputs, in the order of the program.
        output_names: the values that are the network's outputs, in order.
    """

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.nodes = list(program.graph.nodes)
        self.by_name = {node.name: node for node in self.nodes}
        kinds = program.graph_signature.input_specs
        placeholders = [node for node in self.nodes if node.op == "placeholder"]
        self.stored: dict[Node, Tensor] = {}
        self.inputs: list[Node] = []
        for node, spec in zip(placeholders, kinds, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                self.inputs.append(node)
            else:
                self.stored[node] = _stored_tensor(program, spec)
        self.values = {
            node.name: self._describe(node)
            for node in self.nodes
            # ONNX holds a complex number as two real ones: nothing to compare it with as it is.
            if node.op == "call_function"
            and isinstance(node.meta.get("val"), Tensor)
            and not node.meta["val"].is_complex()
        }
        (results,) = program.graph.output_node().args
        mutated = len(program.graph_signature.output_specs) - len(
            program.graph_signature.user_outputs
        )
        assert isinstance(results, (tuple, list))
        self.output_names = [
            node.name if isinstance(node, Node) else "" for node in results[mutated:]
        ]

    def _describe(self, node: Node) -> TracedValue:
        stack = node.meta.get("nn_module_stack") or {}
        path, _ = next(reversed(stack.values()), ("", ""))
        maker = node
        while "getitem" in str(maker.target) and isinstance(maker.args[0], Node):
            maker = maker.args[0]
        return TracedValue(
            name=node.name,
            operator=str(maker.target).removeprefix("aten.").split(".")[0].strip("_"),
            module_path=path,
            source_line=source_line(node.meta.get("stack_trace") or ""),
            arguments=tuple(
                argument.name
                for argument in maker.all_input_nodes
                if argument not in self.stored
            ),
        )

    @property
    def input_names(self) -> list[str]:
        """The traced names of the network's inputs, in order."""
        return [node.name for node in self.inputs]


def _stored_tensor(program: torch.export.ExportedProgram, spec: Any) -> Tensor:
    name = str(spec.target)
    found = program.state_dict.get(name, program.constants.get(name))
    assert isinstance(found, Tensor), f"{name} is {type(found).__name__}"
    return found.detach()


def source_line(stack_trace: str) -> str:
    """The innermost line of a traced operator that is not PyTorch's: ``package/file.py:12``.

    A file of a package that is imported is named from that package on, any other one by its name
    alone, so that every machine says the same.
    """
    frames = [
        (file, line)
        for file, line in _FRAME.findall(stack_trace)
        if not file.startswith(_TORCH_FOLDER)
    ]
    if not frames:
        return ""
    file, line = frames[-1]
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == file and name != "__main__":
            folder = name.split(".")
            if Path(file).stem != "__init__":
                folder = folder[:-1]
            return f"{'/'.join([*folder, Path(file).name])}:{line}"
    return f"{Path(file).name}:{line}"


def trace_network(
    module: nn.Module,
    example_inputs: Mapping[str, Tensor],
    *,
    output_names: Sequence[str],
    opset: int,
    dynamic_axes: Mapping[str, Mapping[int, str]] | None = None,
    target: str = "ort-cpu",
    lowerings: Mapping[str, str] | None = None,
) -> TracedNetwork:
    """Trace a network in eval mode as the exporter does, so that its values have the same names.

    Args:
        module: it comes back as it was.
        example_inputs: in the order of the graph's inputs; dynamic axes at least 2 long.
        output_names: one for each tensor that the network gives.
        opset: of the graph that it is compared with.
        dynamic_axes: as for ``onnx_from_torch``.
        target: as for ``onnx_from_torch``.
        lowerings: as for ``onnx_from_torch``.

    Raises:
        ExportError: the network cannot be traced.
    """
    plan = LoweringPlan(opset, target, lowerings)
    notes: list[str] = []
    with in_eval_mode(module, notes), without_chatter(notes), plan.tracing():
        program = trace_and_translate(
            module, dict(example_inputs), output_names, opset, dynamic_axes or {}, plan
        )
    assert program.exported_program is not None, "torch.onnx gives what it translated"
    return TracedNetwork(program.exported_program)


def pair_values(network: TracedNetwork, graph: OnnxNodes) -> dict[str, str]:
    """Values of an exported graph -> the traced values that they are.

    The exporter names a value after its operator. Where the trace that the graph was made from
    numbered its operators otherwise, values of one kind in one module are paired in order, if
    there are as many on both sides. What has no partner is left out.
    """
    pairs = dict(zip(graph.outputs, network.output_names, strict=False))
    onnx_groups: dict[tuple[str, str], list[str]] = {}
    for node in graph.nodes:
        if node.module_path is None:
            found = [name for name in node.outputs if name in network.values]
            pairs |= {name: name for name in found if name not in pairs}
            continue
        for name in node.outputs:
            if name and name not in pairs:
                onnx_groups.setdefault((node.module_path, _stem(name)), []).append(name)
    traced_groups: dict[tuple[str, str], list[str]] = {}
    for value in network.values.values():
        key = (value.module_path, _stem(value.name))
        traced_groups.setdefault(key, []).append(value.name)
    for key, names in onnx_groups.items():
        traced = traced_groups.get(key, [])
        if set(names) <= set(traced):
            pairs |= {name: name for name in names}
        elif len(names) == len(traced):
            pairs |= dict(zip(names, traced, strict=True))
    return {value: name for value, name in pairs.items() if name in network.values}


def _stem(name: str) -> str:
    return name.rstrip("0123456789").rstrip("_")
