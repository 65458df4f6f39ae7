"""An adapter writes a node that came with some opset as the opset before it has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir


class CannotDowngradeError(Exception):
    """Why a node has no older spelling, as a sentence."""


#: Changes one node in place, or puts others in its stead.
Adapter = Callable[["Rewrite"], None]
#: By operator and the version that is taken back.
ADAPTERS: dict[tuple[str, int], Adapter] = {}


def adapts(version: int, *op_types: str) -> Callable[[Adapter], Adapter]:
    """Register the way from ``version`` of some operators to the one before it."""

    def register(adapter: Adapter) -> Adapter:
        for op_type in op_types:
            ADAPTERS[op_type, version] = adapter
        return adapter

    return register


class Rewrite:
    """One node that is being written anew, and the graph around it."""

    def __init__(self, model: ir.Model, node: ir.Node) -> None:
        self.model = model
        self.node = node

    def fail(self, reason: str) -> CannotDowngradeError:
        """The error to raise: the node's operator and the reason."""
        return CannotDowngradeError(f"{self.node.op_type} {reason}.")

    def input(self, index: int) -> ir.Value | None:
        """An input, or None where it is left out."""
        inputs = self.node.inputs
        return inputs[index] if index < len(inputs) else None

    def rank(self, value: ir.Value | None) -> int:
        """How many axes a tensor has.

        Raises:
            CannotDowngradeError: that is not known.
        """
        if value is None or value.shape is None:
            raise self.fail("has an input of unknown rank")
        return len(value.shape)

    def constant(self, index: int) -> list[Any] | None:
        """The numbers of a constant input, None where it is left out.

        Raises:
            CannotDowngradeError: it is computed while the graph runs.
        """
        value = self.input(index)
        if value is None:
            return None
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is None:
            raise self.fail(f"computes its input {index}, which must be a constant there")
        numbers: list[Any] = tensor.numpy().reshape(-1).tolist()
        return numbers

    def is_constant(self, index: int) -> bool:
        """Whether an input's values are known."""
        value = self.input(index)
        return value is not None and ir.convenience.get_const_tensor(value) is not None

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def set_ints(self, name: str, numbers: Sequence[int]) -> None:
        """Give the node an attribute of whole numbers."""
        self.node.attributes[name] = ir.AttrInt64s(name, [int(n) for n in numbers])

    def drop(self, name: str) -> None:
        """Take an attribute away."""
        self.node.attributes.pop(name, None)

    def drop_inputs_from(self, index: int) -> None:
        """Keep the first inputs only."""
        self.node.resize_inputs(index)

    def new_constant(self, array: Any, name: str) -> ir.Value:
        """A constant tensor, as an initializer of the main graph."""
        tensor = ir.tensor(np.asarray(array), name=f"{self.node.name}_{name}")
        value = ir.Value(
            name=tensor.name,
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        if value.name not in self.model.graph.initializers:
            self.model.graph.register_initializer(value)
        return self.model.graph.initializers[str(value.name)]

    def add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any] | None = None,
        *,
        name: str,
        like: ir.Value | None = None,
    ) -> ir.Value:
        """Put a node before this one; its output has the type and, by default, shape of ``like``."""
        node = ir.Node(
            "", op_type, inputs, ir.convenience.convert_attributes(attributes or {})
        )
        node.name = f"{self.node.name}_{name}"
        output = node.outputs[0]
        output.name = f"{self.node.outputs[0].name}_{name}"
        if like is not None:
            output.type, output.shape = like.type, like.shape
        node.metadata_props.update(self.node.metadata_props)
        assert self.node.graph is not None
        self.node.graph.insert_before(self.node, node)
        return output

    def replace_with(self, op_type: str, inputs: Sequence[ir.Value | None]) -> None:
        """Make this node another operator of other inputs, without attributes."""
        self.node.attributes.clear()
        self.node.op_type = op_type
        self.node.resize_inputs(len(inputs))
        for index, value in enumerate(inputs):
            self.node.replace_input_with(index, value)
