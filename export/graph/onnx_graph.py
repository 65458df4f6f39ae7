"""An exported model in memory, and what is known about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from torch.export import ExportedProgram

from dlzoo.errors import ExportError
from dlzoo.export.graph.onnx_writer import SavedModel, proto_without_weights, write_onnx
from dlzoo.export.graph.valid_nodes import invalid_nodes
from dlzoo.runtime.bundle.manifest_fields import AxisRange
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from dlzoo.runtime.session.native_library import CUSTOM_DOMAIN

#: Initializers up to this many elements (axes, shapes) go along when a graph is checked: what
#: they hold decides the shapes behind them.
_MAX_INLINE_ELEMENTS = 1024


class InvalidGraphError(Exception):
    """What is wrong with a graph that the exporter gave, as a sentence."""


@dataclass(frozen=True, kw_only=True)
class OnnxGraph:
    """An ONNX model that shares the network's weights, and the facts read off it.

    Nothing is copied: save it before the network's weights change.

    ``parameters`` are the network's parameters and buffers that reach an output, by their names
    in its state dict. ``notes`` are sentences for the user about what was done on the way.
    ``dynamic_axes`` holds what the graph itself demands of each symbol; nothing is proved yet.
    ``program`` is what was traced, and translated operator by operator.
    """

    model: ir.Model
    program: ExportedProgram
    opset: int
    ir_version: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dynamic_axes: dict[str, AxisRange]
    lowering: tuple[dict[str, Any], ...]
    parameters: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def num_nodes_by_op(self) -> dict[str, int]:
        """How many nodes of each operator there are, the most frequent first."""
        names = [
            f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            for node in self.model.graph
        ]
        counts = Counter(names)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def custom_ops(self) -> tuple[str, ...]:
        """The operators of domain ``dlzoo``, in subgraphs and functions too, as ``dlzoo::Mish``."""
        places: list[ir.Graph | ir.Function] = [self.model.graph]
        places += self.model.functions.values()
        nodes = (node for place in places for node in place.all_nodes())
        ops = {
            f"{node.domain}::{node.op_type}" for node in nodes if node.domain == CUSTOM_DOMAIN
        }
        return tuple(sorted(ops))

    def save(self, path: Path) -> SavedModel:
        """Write the model to ``path``; the same weights give the same bytes.

        Raises:
            StorageError: it cannot be written; nothing is left.
        """
        return write_onnx(self.model, path)


def spec_of(value: ir.Value) -> TensorSpec:
    """Name, dtype and sizes of a graph input or output.

    Raises:
        ExportError: the exporter left its type or rank open.
    """
    if value.dtype is None or value.shape is None:
        raise ExportError(
            f"{value.name!r} has no type or rank in the exported graph. Return a plain tensor "
            "from the network's forward."
        )
    dims = tuple(d if isinstance(d, int) else str(d.value or "?") for d in value.shape)
    return TensorSpec(name=str(value.name), dtype=value.dtype.numpy().name, dims=dims)


def checkable_proto(model: ir.Model) -> onnx.ModelProto:
    """The model without its large weights, which become inputs: small, and as good to check."""
    proto = proto_without_weights(model)
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        if value.const_value.size <= _MAX_INLINE_ELEMENTS:
            proto.graph.initializer.append(ir.to_proto(value.const_value))
            proto.graph.initializer[-1].name = str(value.name)
        else:
            proto.graph.input.append(
                onnx.helper.make_tensor_value_info(
                    str(value.name),
                    int(value.const_value.dtype),
                    value.const_value.shape.numpy(),
                )
            )
    return proto


def check_graph(model: ir.Model) -> None:
    """Run ``onnx.checker`` with shape inference on everything but the large weights.

    Beside it, each node is compared with the schema of its opset, attribute values too.

    Raises:
        InvalidGraphError: the graph breaks ONNX's rules.
    """
    problem = next(invalid_nodes(model), "")
    if problem:
        raise InvalidGraphError(f"The exported graph breaks a rule of ONNX: {problem}")
    proto = checkable_proto(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InvalidGraphError(
            f"The exported graph breaks a rule of ONNX: {lines[0].rstrip('.')}."
        ) from None
