"""Writing an ONNX file straight from the memory that holds the weights.

``onnx.save`` builds the whole file in memory, more than once. Here only the graph goes through
protobuf; each weight is a short header and its raw bytes, written from where they lie. A message
is a row of fields in any order, so the weights follow the rest of the graph inside one ``graph``
field, whose length is known before the first byte is written.

Source: onnx/onnx.proto3 (field numbers); https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import torch

from dlzoo.errors import StorageError
from dlzoo.runtime.onnx_reader.protobuf_wire import (
    LEN,
    encode_bytes,
    encode_integer,
    encode_varint,
)

_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_TENSOR_DIMS, _TENSOR_DATA_TYPE, _TENSOR_NAME, _TENSOR_RAW_DATA = 1, 2, 8, 9
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION, _EXTERNAL = 13, 14, 1
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

#: Protobuf counts bytes in a signed 32-bit integer.
MAX_FILE_BYTES = 2**31 - 1
#: Weights beside the file start at a page, so that a runtime can map them.
#: Source: onnx/docs/ExternalData.md, ``offset``.
_PAGE_BYTES = 4096
#: Smaller tensors stay in the graph, where shape inference reads them.
_MIN_EXTERNAL_BYTES = 1024
#: Bytes written and hashed at a time: they stay in the second-level cache in between.
_CHUNK_BYTES = 2**20
#: Chunks that hashing may be behind: transposed weights are copied, and may not pile up.
_MAX_PENDING = 32


@dataclass(frozen=True)
class SavedModel:
    """The files of a model: sha256 in hex by file name, and their size together."""

    files: dict[str, str]
    size_bytes: int


def write_onnx(
    model: ir.Model, path: Path, *, max_file_bytes: int = MAX_FILE_BYTES
) -> SavedModel:
    """Write a model as one file, or with ``<path>.data`` beside it where that would be too large.

    Args:
        model: every initializer must hold its values.
        path: the file's name; what is there is replaced.
        max_file_bytes: the largest single file.

    Raises:
        StorageError: it cannot be written. No part of it is left.
    """
    plan = _Plan(model, data_name=None)
    if plan.file_bytes > max_file_bytes:
        plan = _Plan(model, data_name=f"{path.name}.data")
    files = {path: plan.file_parts()}
    if plan.data_name is not None:
        files[path.with_name(plan.data_name)] = plan.data_parts()
    size_bytes = plan.file_bytes + plan.data_bytes
    try:
        hashes = {file.name: _write(file, parts) for file, parts in files.items()}
    except BaseException as error:
        for file in files:
            with suppress(OSError):
                file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StorageError(
                f"{path.name} ({size_bytes / 1e6:,.1f} MB) cannot be written: "
                f"{error.strerror or error}. Nothing was left there. Free some space, or choose "
                "another place with -o."
            ) from None
        raise
    return SavedModel(hashes, size_bytes)


def proto_without_weights(model: ir.Model) -> onnx.ModelProto:
    """The model's message with every initializer of the main graph left out."""
    initializers = dict(model.graph.initializers)
    model.graph.initializers.clear()
    try:
        return ir.to_proto(model)
    finally:
        model.graph.initializers.update(initializers)


class _Plan:
    """What is written where, with every length known beforehand."""

    def __init__(self, model: ir.Model, *, data_name: str | None) -> None:
        proto = proto_without_weights(model)
        self._graph = proto.graph.SerializeToString(deterministic=True)
        proto.ClearField("graph")
        self._model = proto.SerializeToString(deterministic=True)
        self.data_name = data_name
        self.data_bytes = 0
        #: Header inside the graph, and the values where they follow it.
        self._inside: list[tuple[bytes, ir.TensorProtocol | None]] = []
        #: Offset and values beside the file.
        self._beside: list[tuple[int, ir.TensorProtocol]] = []
        for name, value in model.graph.initializers.items():
            assert value.const_value is not None, f"initializer {name} holds no values"
            self._add(name, value.const_value)
        inside_bytes = sum(len(header) + _num_bytes(t) for header, t in self._inside)
        self._graph_bytes = len(self._graph) + inside_bytes
        self._graph_key = encode_varint(_MODEL_GRAPH << 3 | LEN) + encode_varint(
            self._graph_bytes
        )
        self.file_bytes = len(self._model) + len(self._graph_key) + self._graph_bytes

    def _add(self, name: str, tensor: ir.TensorProtocol) -> None:
        if tensor.dtype == ir.DataType.STRING:
            proto = ir.to_proto(tensor)
            proto.name = name
            message = proto.SerializeToString(deterministic=True)
            self._inside.append((encode_bytes(_GRAPH_INITIALIZER, message), None))
            return
        num_bytes = tensor.nbytes
        header = b"".join(encode_integer(_TENSOR_DIMS, d) for d in tensor.shape.numpy())
        header += encode_integer(_TENSOR_DATA_TYPE, int(tensor.dtype))
        header += encode_bytes(_TENSOR_NAME, name.encode())
        key = encode_varint(_GRAPH_INITIALIZER << 3 | LEN)
        if self.data_name is None or num_bytes <= _MIN_EXTERNAL_BYTES:
            header += encode_varint(_TENSOR_RAW_DATA << 3 | LEN) + encode_varint(num_bytes)
            key += encode_varint(len(header) + num_bytes)
            self._inside.append((key + header, tensor))
            return
        offset = -(-self.data_bytes // _PAGE_BYTES) * _PAGE_BYTES
        place = {"location": self.data_name, "offset": str(offset), "length": str(num_bytes)}
        for entry_key, entry_value in place.items():
            entry = encode_bytes(_ENTRY_KEY, entry_key.encode())
            entry += encode_bytes(_ENTRY_VALUE, entry_value.encode())
            header += encode_bytes(_TENSOR_EXTERNAL_DATA, entry)
        header += encode_integer(_TENSOR_DATA_LOCATION, _EXTERNAL)
        self._inside.append((key + encode_varint(len(header)) + header, None))
        self._beside.append((offset, tensor))
        self.data_bytes = offset + num_bytes

    def file_parts(self) -> Iterator[bytes | memoryview]:
        """The bytes of the model's file, in order."""
        yield self._model + self._graph_key + self._graph
        for header, tensor in self._inside:
            yield header
            if tensor is not None:
                yield from _raw_parts(tensor)

    def data_parts(self) -> Iterator[bytes | memoryview]:
        """The bytes of the file of weights, in order."""
        position = 0
        for offset, tensor in self._beside:
            yield bytes(offset - position)
            yield from _raw_parts(tensor)
            position = offset + tensor.nbytes


def _num_bytes(tensor: ir.TensorProtocol | None) -> int:
    return 0 if tensor is None else tensor.nbytes


def _raw_parts(tensor: ir.TensorProtocol) -> Iterator[bytes | memoryview]:
    """The values as ONNX stores them: row-major, little-endian; views wherever that is possible."""
    raw = getattr(tensor, "raw", None)
    has_whole_bytes = tensor.nbytes == tensor.size * tensor.dtype.itemsize
    if not has_whole_bytes or sys.byteorder == "big":
        yield tensor.tobytes()
    elif isinstance(raw, torch.Tensor):
        yield from _parts_of(raw.detach(), is_flat=raw.is_contiguous() and raw.is_cpu)
    elif isinstance(raw, np.ndarray):
        yield from _parts_of(raw, is_flat=raw.flags.c_contiguous)
    else:
        yield tensor.tobytes()


def _parts_of(
    array: torch.Tensor | npt.NDArray[Any], *, is_flat: bool
) -> Iterator[memoryview]:
    if is_flat:
        flat = _bytes_of(array)
        for start in range(0, len(flat), _CHUNK_BYTES):
            yield flat[start : start + _CHUNK_BYTES]
        return
    # A transposed weight, or one on a device: row by row, so that no whole copy is made.
    num_rows = max(1, _CHUNK_BYTES * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), num_rows):
        yield _bytes_of(array[start : start + num_rows])


def _bytes_of(array: torch.Tensor | npt.NDArray[Any]) -> memoryview:
    if isinstance(array, torch.Tensor):
        array = array.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _write(path: Path, parts: Iterator[bytes | memoryview]) -> str:
    """Write the parts, and return their sha256, which another thread computes meanwhile."""
    digest = hashlib.sha256()
    pending: deque[Future[None]] = deque()
    with path.open("wb") as file, ThreadPoolExecutor(1) as hashing:
        for part in parts:
            pending.append(hashing.submit(digest.update, part))
            if len(pending) > _MAX_PENDING:
                pending.popleft().result()
            file.write(part)
        file.flush()
        os.fsync(file.fileno())  # some file systems find only now that they are full
    return digest.hexdigest()
