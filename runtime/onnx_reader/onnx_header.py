"""Read what an ONNX file states of itself, without the onnx package and without its weights.

The file is mapped, not read: weights are skipped over, so 500 MB cost a few milliseconds.

Source: onnx/onnx.proto3 (field numbers below).
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dlzoo.errors import BundleError
from dlzoo.runtime.onnx_reader.external_files import check_external_files
from dlzoo.runtime.onnx_reader.protobuf_wire import WireError, read_fields
from dlzoo.runtime.onnx_reader.tensor_proto import dtype_name
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec

_MODEL_IR, _MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_OPSETS, _MODEL_FUNCTIONS = 1, 2, 7, 8, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_GRAPH_INPUT, _GRAPH_OUTPUT = 11, 12
_NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN = 1, 7, 10
_TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 13, 14
#: Subgraphs lie in If, Loop and Scan; no model nests them deeper than this.
_MAX_DEPTH = 32
#: Protobuf counts bytes in a signed 32-bit integer.
_MAX_BYTES = 2**31 - 1
#: An output may declare no shape at all.
UNKNOWN_SHAPE: tuple[int | str, ...] = ("...",)


@dataclass(frozen=True, kw_only=True)
class OnnxHeader:
    """Facts of a model file.

    ``inputs`` are those that a caller must give (initializers are left out); a size without a name
    is ``?``. ``num_nodes_by_op`` counts operators in the graph, its subgraphs and the model's
    functions, as ``Conv``, or ``com.microsoft::Gelu`` outside ONNX's own domain.
    ``external_files`` are the files that hold weights, as the model names them;
    ``external_checksums`` has the SHA-1 of those for which it gives one. ``functions`` are those
    that the model defines itself, as ``dlzoo::Mish``.
    """

    ir_version: int
    producer: str
    opset_imports: dict[str, int]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    num_nodes_by_op: dict[str, int]
    external_files: tuple[str, ...]
    external_checksums: dict[str, str] = field(default_factory=dict)
    functions: tuple[str, ...] = ()

    @property
    def opset(self) -> int:
        """The version of ONNX's own operator set, 0 where the model imports none."""
        return self.opset_imports.get("", 0)


@dataclass
class _Walk:
    """The facts that were read so far."""

    ops: Counter[str] = field(default_factory=Counter)
    #: Files that hold weights, each with the SHA-1 that the model gives for it, if it does.
    external: dict[str, str] = field(default_factory=dict)
    initializers: set[str] = field(default_factory=set)
    inputs: list[TensorSpec] = field(default_factory=list)
    outputs: list[TensorSpec] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)


def read_onnx_header(path: Path) -> OnnxHeader:
    """Read the header of an ONNX file, and check that what it names lies in its folder.

    Raises:
        BundleError: the file is missing, empty, cut off or no ONNX model; it has no node or no
            output; or its weights lie outside its folder or are missing.
    """
    try:
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes == 0:
                raise _not_a_model(path, "it is empty")
            if size_bytes > _MAX_BYTES:
                raise _not_a_model(
                    path,
                    f"it has {size_bytes / 2**30:.1f} GiB, and no runtime reads a protobuf of more "
                    "than 2; larger weights lie in a file beside it",
                )
            # Never closed by hand: the views into it keep it alive as long as they are used.
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BundleError(
            f"{path} cannot be opened: {reason}. Give the path of an .onnx file or of a bundle."
        ) from None
    try:
        header = _read_model(data)
    except ValueError as error:
        raise _not_a_model(path, str(error)) from None
    if not header.num_nodes_by_op:
        raise _not_a_model(path, "its graph has no node")
    if not header.outputs:
        raise _not_a_model(path, "its graph has no output")
    check_external_files(path, header.external_files, header.external_checksums)
    return header


def _not_a_model(path: Path, reason: str) -> BundleError:
    return BundleError(
        f"{path} is not a sound ONNX model: {reason}. Get the file again, or export it again."
    )


def _read_model(data: memoryview) -> OnnxHeader:
    walk = _Walk()
    ir_version, producer, has_graph = 0, "", False
    opsets: dict[str, int] = {}
    for number, _, value in read_fields(data):
        if number == _MODEL_IR:
            ir_version = _number(value)
        elif number == _MODEL_PRODUCER:
            producer = _text(value)
        elif number == _MODEL_OPSETS:
            domain, version = _read_opset(_message(value))
            opsets["" if domain == "ai.onnx" else domain] = version
        elif number == _MODEL_GRAPH:
            has_graph = True
            _walk_graph(_message(value), walk, depth=0)
        elif number == _MODEL_FUNCTIONS:
            walk.functions.append(_walk_function(_message(value), walk))
    if not has_graph:
        raise WireError("it holds no graph")
    return OnnxHeader(
        ir_version=ir_version,
        producer=producer,
        opset_imports=opsets,
        # Up to IR version 3 every initializer is listed among the inputs, too.
        inputs=tuple(spec for spec in walk.inputs if spec.name not in walk.initializers),
        outputs=tuple(walk.outputs),
        num_nodes_by_op=dict(sorted(walk.ops.items())),
        external_files=tuple(sorted(walk.external)),
        external_checksums={name: sha1 for name, sha1 in walk.external.items() if sha1},
        functions=tuple(sorted(walk.functions)),
    )


def _walk_graph(data: memoryview, walk: _Walk, *, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise WireError(f"its graphs are nested deeper than {_MAX_DEPTH}")
    for number, _, value in read_fields(data):
        if number == _GRAPH_NODE:
            _walk_node(_message(value), walk, depth=depth)
        elif number == _GRAPH_INITIALIZER:
            name = _walk_tensor(_message(value), walk)
            if depth == 0:
                walk.initializers.add(name)
        elif number == _GRAPH_SPARSE:
            _walk_sparse_tensor(_message(value), walk)
        elif number == _GRAPH_INPUT and depth == 0:
            walk.inputs.append(_read_value_info(_message(value)))
        elif number == _GRAPH_OUTPUT and depth == 0:
            walk.outputs.append(_read_value_info(_message(value)))


def _walk_function(data: memoryview, walk: _Walk) -> str:
    """Count the nodes of a function's body; returns its name with its domain."""
    name, domain = "", ""
    for number, _, value in read_fields(data):
        if number == _FUNCTION_NAME:
            name = _text(value)
        elif number == _FUNCTION_DOMAIN:
            domain = _text(value)
        elif number == _FUNCTION_NODE:
            _walk_node(_message(value), walk, depth=1)
    return f"{domain}::{name}"


def _walk_node(data: memoryview, walk: _Walk, *, depth: int) -> None:
    op_type, domain = "", ""
    for number, _, value in read_fields(data):
        if number == _NODE_OP_TYPE:
            op_type = _text(value)
        elif number == _NODE_DOMAIN:
            domain = _text(value)
        elif number == _NODE_ATTRIBUTE:
            for inner, _, part in read_fields(_message(value)):
                if inner in _ATTRIBUTE_TENSORS:
                    _walk_tensor(_message(part), walk)
                elif inner in _ATTRIBUTE_GRAPHS:
                    _walk_graph(_message(part), walk, depth=depth + 1)
                elif inner in _ATTRIBUTE_SPARSE:
                    _walk_sparse_tensor(_message(part), walk)
    walk.ops[f"{domain}::{op_type}" if domain not in ("", "ai.onnx") else op_type] += 1


def _walk_sparse_tensor(data: memoryview, walk: _Walk) -> None:
    for number, _, value in read_fields(data):
        if number in (1, 2):  # values, indices
            _walk_tensor(_message(value), walk)


def _walk_tensor(data: memoryview, walk: _Walk) -> str:
    """Note where a tensor's data lie; returns its name."""
    name, is_external = "", False
    external: dict[str, str] = {}
    for number, _, value in read_fields(data):
        if number == _TENSOR_NAME:
            name = _text(value)
        elif number == _TENSOR_EXTERNAL:
            entry = {inner: part for inner, _, part in read_fields(_message(value))}
            key, text = (_text(entry.get(i, memoryview(b""))) for i in (1, 2))
            external[key] = text
        elif number == _TENSOR_LOCATION:
            is_external = _number(value) == 1
    location = external.get("location", "")
    if is_external and not location:
        raise WireError(f"tensor {name!r} lies in another file, which is not named")
    if location:
        walk.external[location] = external.get("checksum") or walk.external.get(location, "")
    return name


def _read_opset(data: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, _, value in read_fields(data):
        if number == 1:
            domain = _text(value)
        elif number == 2:
            version = _number(value)
    return domain, version


def _read_value_info(data: memoryview) -> TensorSpec:
    name, dtype, dims = "", "unknown", UNKNOWN_SHAPE
    for number, _, value in read_fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2:  # TypeProto; its field 1 is tensor_type: elem_type 1, shape 2
            for tensor_type in _messages(_message(value), 1):
                for inner, _, part in read_fields(tensor_type):
                    if inner == 1:
                        dtype = dtype_name(_number(part))
                    elif inner == 2:
                        dims = tuple(_read_dim(dim) for dim in _messages(_message(part), 1))
    return TensorSpec(name=name, dtype=dtype, dims=dims)


def _read_dim(data: memoryview) -> int | str:
    for number, _, value in read_fields(data):
        if number == 1:
            return _number(value)
        if number == 2:
            return _text(value) or "?"
    return "?"


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    return (_message(value) for number, _, value in read_fields(data) if number == wanted)


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise WireError("a number lies where a message should be")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode("utf-8", "replace")


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise WireError("a message lies where a number should be")
    return value
