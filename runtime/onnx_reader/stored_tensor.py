"""A weight inside an ONNX file or beside it: where its bytes lie, read only when asked for.

Source: onnx/onnx.proto3, message TensorProto (field numbers below).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.runtime.onnx_reader.protobuf_wire import (
    WireError,
    encode_bytes,
    encode_integer,
    read_fields,
    unpack_varints,
)
from dlzoo.runtime.onnx_reader.tensor_proto import decode_tensor, dtype_name

_TENSOR_DIMS, _TENSOR_DATA_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_TENSOR_EXTERNAL, _TENSOR_LOCATION, _EXTERNAL = 13, 14, 1
_KEY, _VALUE = 1, 2
#: Shape inference reads small tensors (axes, sizes), so they stay inside a model.
_MIN_STUB_BYTES = 1024
#: Element types whose bytes numpy holds as they are: float32 and 64, float16, the integers.
_STUB_TYPES = frozenset([1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13])


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """An initializer: where its bytes lie."""

    name: str
    data: memoryview = field(repr=False)
    element_type: int
    dims: tuple[int, ...]
    raw: memoryview | None = field(repr=False)

    @property
    def has_stub(self) -> bool:
        """Whether models made here hold a stub of it, so that a session needs the array."""
        if self.raw is None or self.element_type not in _STUB_TYPES:
            return False
        return len(self.raw) >= _MIN_STUB_BYTES

    def view(self) -> npt.NDArray[Any]:
        """The values of a tensor with a stub, where they lie in the file: nothing is copied."""
        assert self.raw is not None and self.has_stub, self.name
        dtype = np.dtype(dtype_name(self.element_type)).newbyteorder("<")
        return np.frombuffer(self.raw, dtype).reshape(self.dims)

    def array(self) -> npt.NDArray[Any]:
        """A copy of the values; bfloat16 comes back as float32."""
        if self.raw is None:
            return decode_tensor(bytes(self.data))[1]
        if self.has_stub:
            return self.view().copy()
        header = encode_integer(_TENSOR_DATA_TYPE, self.element_type)
        for dim in self.dims:
            header += encode_integer(_TENSOR_DIMS, dim)
        return decode_tensor(header + encode_bytes(_TENSOR_RAW, bytes(self.raw)))[1]

    def encoded(self) -> bytes:
        """The TensorProto for a model made here."""
        if not self.has_stub:
            return bytes(self.data)
        assert self.raw is not None
        stub = b"".join(encode_integer(_TENSOR_DIMS, dim) for dim in self.dims)
        stub += encode_integer(_TENSOR_DATA_TYPE, self.element_type)
        stub += encode_bytes(_TENSOR_NAME, self.name.encode())
        for key, value in (
            ("location", "weights"),
            ("offset", "0"),
            ("length", str(len(self.raw))),
        ):
            entry = encode_bytes(_KEY, key.encode()) + encode_bytes(_VALUE, value.encode())
            stub += encode_bytes(_TENSOR_EXTERNAL, entry)
        return stub + encode_integer(_TENSOR_LOCATION, _EXTERNAL)


def read_tensor(folder: Path, data: memoryview) -> StoredTensor:
    """Read a TensorProto's header; external data are looked up in ``folder``."""
    dims: list[int] = []
    name, element_type = "", 0
    raw: memoryview | None = None
    external: dict[str, str] = {}
    for number, _, value in read_fields(data):
        if number == _TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else unpack_varints(value).tolist()
        elif number == _TENSOR_DATA_TYPE and isinstance(value, int):
            element_type = value
        elif number == _TENSOR_NAME:
            name = text(value)
        elif number == _TENSOR_RAW:
            raw = message(value)
        elif number == _TENSOR_EXTERNAL:
            entry = message_fields(message(value))
            external[text(entry[_KEY])] = text(entry[_VALUE])
    if external:
        whole = mapped(folder / external["location"])
        start = int(external.get("offset", 0))
        raw = whole[start : start + int(external.get("length", len(whole) - start))]
    return StoredTensor(
        name=name, data=data, element_type=element_type, dims=tuple(dims), raw=raw
    )


def mapped(path: Path) -> memoryview:
    """A file's bytes, read as they are touched."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def message_fields(data: memoryview) -> dict[int, int | memoryview]:
    """Field number -> value of a message whose fields come once."""
    return {number: value for number, _, value in read_fields(data)}


def message(value: int | memoryview) -> memoryview:
    """A field that must hold bytes."""
    if isinstance(value, int):
        raise WireError("a number lies where a message should be")
    return value


def text(value: int | memoryview) -> str:
    """A field that must hold text."""
    return bytes(message(value)).decode("utf-8", "replace")
