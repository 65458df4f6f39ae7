"""The nodes of an ONNX file, and models made of some of them, without the onnx package.

The file is mapped, not read. A model that is made here holds no large weight: each is a stub
that names its length, and a session is given the arrays beside it, once for all sessions.

Source: onnx/onnx.proto3 (field numbers below).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from dlzoo.errors import BundleError
from dlzoo.runtime.onnx_reader.onnx_header import read_onnx_header
from dlzoo.runtime.onnx_reader.protobuf_wire import (
    LEN,
    WireError,
    encode_bytes,
    encode_integer,
    read_fields,
)
from dlzoo.runtime.onnx_reader.stored_tensor import (
    StoredTensor,
    mapped,
    message,
    message_fields,
    read_tensor,
    text,
)
from dlzoo.runtime.onnx_reader.tensor_proto import dtype_name

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_INITIALIZER = 1, 2, 5
_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO = 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP_TYPE = 1, 2, 3, 4
_NODE_ATTRIBUTE, _NODE_DOMAIN, _NODE_METADATA = 5, 7, 9
_ATTRIBUTE_NAME, _ATTRIBUTE_GRAPHS = 1, (6, 11)
_TENSOR_NAME = 8
_KEY, _VALUE = 1, 2
#: Same key as ``trace_metadata.NAME_SCOPES``, which needs onnx_ir to import.
_NAME_SCOPES = "pkg.torch.onnx.name_scopes"
_NUMBER_OF_DTYPE = {dtype_name(number): number for number in range(1, 16)}


@dataclass(frozen=True, kw_only=True)
class GraphNode:
    """One node; ``inputs`` hold the outer values that its subgraphs read, too.

    ``scopes`` are the paths of the modules around it and the traced operator's name, as the
    exporter left them; ``attributes`` the bytes of each.
    """

    index: int
    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scopes: tuple[str, ...]
    attributes: dict[str, bytes]
    data: memoryview = field(repr=False, compare=False)

    @property
    def module_path(self) -> str | None:
        """The path of the innermost module around it; None where it was not recorded."""
        return self.scopes[-2] if len(self.scopes) > 1 else None

    @property
    def label(self) -> str:
        """The node's name, or its kind and first output where it has none."""
        return self.name or f"{self.op_type} -> {self.outputs[0]}"


class OnnxNodes:
    """The graph of an ONNX file, read node by node; :meth:`read` checks the file first."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self.path = path
        self.nodes: list[GraphNode] = []
        self.initializers: dict[str, StoredTensor] = {}
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self._around: list[bytes] = []
        self._other_fields: list[bytes] = []
        for number, wire_type, value in read_fields(data):
            if number == _MODEL_GRAPH:
                self._read_graph(message(value))
            else:
                self._around.append(_encoded(number, wire_type, value))
        self.inputs = [name for name in self.inputs if name not in self.initializers]
        self.producers = {
            value: node for node in self.nodes for value in node.outputs if value
        }

    @classmethod
    def read(cls, path: Path) -> OnnxNodes:
        """Map a file and read its graph.

        Raises:
            BundleError: it is not a sound ONNX model, or keeps weights outside its folder.
        """
        read_onnx_header(path)
        try:
            return cls(path, mapped(path))
        except ValueError as error:
            raise BundleError(
                f"{path} is not a sound ONNX model: {error}. Get the file again."
            ) from None

    def _read_graph(self, data: memoryview) -> None:
        for number, wire_type, value in read_fields(data):
            if number == _GRAPH_NODE:
                self.nodes.append(_read_node(len(self.nodes), message(value)))
            elif number == _GRAPH_INITIALIZER:
                tensor = read_tensor(self.path.parent, message(value))
                self.initializers[tensor.name] = tensor
            else:
                if number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
                    names = self.inputs if number == _GRAPH_INPUT else self.outputs
                    names.append(text(message_fields(message(value))[1]))
                self._other_fields.append(_encoded(number, wire_type, value))

    def tapped(self, values: Iterable[str] = ()) -> bytes:
        """The whole model, with ``values`` as further outputs and its large weights as stubs."""
        graph = b"".join(encode_bytes(_GRAPH_NODE, bytes(node.data)) for node in self.nodes)
        graph += b"".join(
            encode_bytes(_GRAPH_INITIALIZER, tensor.encoded())
            for tensor in self.initializers.values()
        )
        graph += b"".join(self._other_fields)
        own = set(self.outputs)
        # A runtime infers the types of outputs that state none.
        graph += b"".join(
            encode_bytes(_GRAPH_OUTPUT, encode_bytes(1, name.encode()))
            for name in dict.fromkeys(values)
            if name not in own
        )
        return b"".join(self._around) + encode_bytes(_MODEL_GRAPH, graph)

    def extracted(
        self,
        nodes: Sequence[GraphNode],
        inputs: Mapping[str, npt.NDArray[Any]],
        outputs: Sequence[str],
    ) -> bytes:
        """A model of these nodes alone; its inputs have the dtypes and shapes of the arrays."""
        graph = b"".join(encode_bytes(_GRAPH_NODE, bytes(node.data)) for node in nodes)
        graph += encode_bytes(_GRAPH_NAME, b"extracted")
        needed = {name for node in nodes for name in node.inputs}
        graph += b"".join(
            encode_bytes(_GRAPH_INITIALIZER, tensor.encoded())
            for name, tensor in self.initializers.items()
            if name in needed and name not in inputs
        )
        for name, array in inputs.items():
            graph += encode_bytes(_GRAPH_INPUT, _value_info(name, array))
        for name in outputs:
            graph += encode_bytes(_GRAPH_OUTPUT, encode_bytes(1, name.encode()))
        return b"".join(self._around) + encode_bytes(_MODEL_GRAPH, graph)

    def segment(self, value: str, ends: Iterable[str]) -> tuple[list[GraphNode], list[str]]:
        """The nodes that compute ``value`` from ``ends``: (nodes in graph order, inputs used).

        Graph inputs and initializers end a walk as well; of those only inputs are listed.
        """
        stop = {*ends, *self.inputs}
        found: dict[int, GraphNode] = {}
        used: dict[str, None] = {}
        pending = [value]
        while pending:
            node = self.producers.get(pending.pop(0))
            if node is None or node.index in found:
                continue
            found[node.index] = node
            for name in node.inputs:
                if name in stop:
                    used[name] = None
                elif name and name not in self.initializers:
                    pending.append(name)
        return [found[index] for index in sorted(found)], list(used)


def _read_node(index: int, data: memoryview) -> GraphNode:
    texts: dict[int, list[str]] = {}
    captured: list[str] = []
    attributes: dict[str, bytes] = {}
    metadata: dict[str, str] = {}
    for number, _, value in read_fields(data):
        if number == _NODE_ATTRIBUTE:
            name, graphs = "", []
            for inner, _, part in read_fields(message(value)):
                if inner == _ATTRIBUTE_NAME:
                    name = text(part)
                elif inner in _ATTRIBUTE_GRAPHS:
                    graphs.append(message(part))
            attributes[name] = bytes(message(value))
            for graph in graphs:
                captured += _captured(graph)
        elif number == _NODE_METADATA:
            entry = message_fields(message(value))
            metadata[text(entry[_KEY])] = text(entry.get(_VALUE, memoryview(b"")))
        elif not isinstance(value, int):
            texts.setdefault(number, []).append(text(value))
    inputs = texts.get(_NODE_INPUT, [])
    return GraphNode(
        index=index,
        name="".join(texts.get(_NODE_NAME, [])),
        op_type="".join(texts.get(_NODE_OP_TYPE, [])),
        domain="".join(texts.get(_NODE_DOMAIN, [])),
        inputs=(*inputs, *(name for name in dict.fromkeys(captured) if name not in inputs)),
        outputs=tuple(texts.get(_NODE_OUTPUT, [])),
        scopes=_scopes(metadata.get(_NAME_SCOPES, "")),
        attributes=attributes,
        data=data,
    )


def _captured(graph: memoryview) -> list[str]:
    """The values that the nodes of a subgraph read and do not make."""
    nodes = [
        _read_node(0, message(value))
        for number, _, value in read_fields(graph)
        if number == _GRAPH_NODE
    ]
    own = {name for node in nodes for name in node.outputs}
    for number, _, value in read_fields(graph):
        if number == _GRAPH_INITIALIZER:
            own.add(text(message_fields(message(value)).get(_TENSOR_NAME, memoryview(b""))))
        elif number == _GRAPH_INPUT:
            own.add(text(message_fields(message(value))[1]))
    outputs = [
        text(message_fields(message(value))[1])
        for number, _, value in read_fields(graph)
        if number == _GRAPH_OUTPUT
    ]
    read = [name for node in nodes for name in node.inputs] + outputs
    return [name for name in dict.fromkeys(read) if name and name not in own]


def _value_info(name: str, array: npt.NDArray[Any]) -> bytes:
    shape = b"".join(encode_bytes(1, encode_integer(1, size)) for size in array.shape)
    tensor = encode_integer(1, _NUMBER_OF_DTYPE[array.dtype.name]) + encode_bytes(2, shape)
    return encode_bytes(1, name.encode()) + encode_bytes(2, encode_bytes(1, tensor))


def _scopes(text: str) -> tuple[str, ...]:
    try:
        scopes = ast.literal_eval(text) if text else ()
    except (SyntaxError, ValueError):  # somebody else's metadata under this key
        return ()
    return tuple(map(str, scopes)) if isinstance(scopes, (list, tuple)) else ()


def _encoded(number: int, wire_type: int, value: int | memoryview) -> bytes:
    if isinstance(value, int):
        if wire_type:
            raise WireError(f"field {number} is not a varint, message or text")
        return encode_integer(number, value)
    assert wire_type == LEN
    return encode_bytes(number, bytes(value))
