"""ONNX's TensorProto, read and written with numpy alone: the `.pb` files of test data.

Source: onnx/onnx.proto3, message TensorProto (field numbers below), and
https://github.com/onnx/onnx/blob/main/docs/IR.md ("tensor element types").
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.errors import ArgumentError, BundleError
from dlzoo.runtime.onnx_reader.protobuf_wire import (
    WireError,
    encode_bytes,
    encode_integer,
    encode_varint,
    read_fields,
    unpack_varints,
)

# Field numbers of TensorProto.
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _DATA_LOCATION = 1, 2, 8, 9, 14
_FLOAT_DATA, _INT32_DATA, _STRING_DATA, _INT64_DATA = 4, 5, 6, 7
_DOUBLE_DATA, _UINT64_DATA = 10, 11
_EXTERNAL = 1
_STRING, _BFLOAT16 = 8, 16

# Element type -> (numpy dtype, the typed field that may hold it instead of raw_data).
_ELEMENT_TYPES: dict[int, tuple[str, int]] = {
    1: ("float32", _FLOAT_DATA),
    2: ("uint8", _INT32_DATA),
    3: ("int8", _INT32_DATA),
    4: ("uint16", _INT32_DATA),
    5: ("int16", _INT32_DATA),
    6: ("int32", _INT32_DATA),
    7: ("int64", _INT64_DATA),
    8: ("object", _STRING_DATA),
    9: ("bool", _INT32_DATA),
    10: ("float16", _INT32_DATA),
    11: ("float64", _DOUBLE_DATA),
    12: ("uint32", _UINT64_DATA),
    13: ("uint64", _UINT64_DATA),
    14: ("complex64", _FLOAT_DATA),
    15: ("complex128", _DOUBLE_DATA),
}
_NUMBER_OF_DTYPE = {dtype: number for number, (dtype, _) in _ELEMENT_TYPES.items()}

#: Element types that numpy has no name for; bfloat16 is widened to float32 without loss.
_WITHOUT_NUMPY = {
    17: "float8e4m3fn",
    18: "float8e4m3fnuz",
    19: "float8e5m2",
    20: "float8e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4e2m1",
    24: "float8e8m0",
    25: "uint2",
    26: "int2",
    27: "float6e2m3",
    28: "float6e3m2",
}


def dtype_name(element_type: int) -> str:
    """The name of an ONNX element type as numpy writes it, e.g. 1 -> ``float32``, 8 -> ``string``."""
    if element_type in (_STRING, _BFLOAT16):
        return "string" if element_type == _STRING else "bfloat16"
    if element_type in _ELEMENT_TYPES:
        return _ELEMENT_TYPES[element_type][0]
    return _WITHOUT_NUMPY.get(element_type, f"element type {element_type}")


def encode_tensor(name: str, array: npt.NDArray[Any]) -> bytes:
    """Write an array as a TensorProto, in ``raw_data`` (strings in ``string_data``).

    The same name and array give the same bytes on every machine: little-endian, C order.

    Raises:
        ArgumentError: ONNX has no element type for the array's dtype.
    """
    dtype = "object" if array.dtype.kind == "U" else array.dtype.name
    if dtype not in _NUMBER_OF_DTYPE:
        known = ", ".join(d for d in _NUMBER_OF_DTYPE if d != "object")
        raise ArgumentError(
            f"Tensor {name!r} has dtype {array.dtype}, which is not written to test data. "
            f"Convert it to one of {known}."
        )
    parts = []
    if array.ndim:
        parts.append(encode_bytes(_DIMS, b"".join(encode_varint(d) for d in array.shape)))
    parts.append(encode_integer(_DATA_TYPE, _NUMBER_OF_DTYPE[dtype]))
    if dtype == "object":
        parts += [
            encode_bytes(_STRING_DATA, s if isinstance(s, bytes) else str(s).encode())
            for s in array.ravel().tolist()
        ]
    parts.append(encode_bytes(_NAME, name.encode()))
    if dtype != "object":
        little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
        parts.append(encode_bytes(_RAW_DATA, little_endian.tobytes()))
    return b"".join(parts)


def decode_tensor(data: bytes) -> tuple[str, npt.NDArray[Any]]:
    """Read a TensorProto: (name, array), from ``raw_data`` or any of the typed fields.

    bfloat16 comes back as float32 (every value is exact); strings as an object array of str.

    Raises:
        BundleError: the bytes are not a TensorProto, it is cut off, its sizes disagree, its data
            lie in another file, or numpy has no such element type.
    """
    try:
        return _decode(memoryview(data))
    except (
        ValueError
    ) as error:  # WireError, undecodable text, sizes beyond what numpy can hold
        raise BundleError(
            f"The tensor of {len(data)} bytes is not a TensorProto: {error}. "
            "Get the file again from where it was made."
        ) from None


def _decode(data: memoryview) -> tuple[str, npt.NDArray[Any]]:
    dims: list[int] = []
    element_type, name, location = 0, "", 0
    raw: memoryview | None = None
    typed: dict[int, list[int | memoryview]] = {}
    for number, _, value in read_fields(data):
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else unpack_varints(value).tolist()
        elif number in (_DATA_TYPE, _DATA_LOCATION):
            if isinstance(value, memoryview):
                raise WireError(f"field {number} should hold a number")
            element_type = value if number == _DATA_TYPE else element_type
            location = value if number == _DATA_LOCATION else location
        elif number == _NAME:
            name = _bytes(number, value).decode("utf-8", "replace")
        elif number == _RAW_DATA:
            raw = memoryview(_bytes(number, value))
        else:
            typed.setdefault(number, []).append(value)

    if location == _EXTERNAL:
        raise BundleError(
            f"Tensor {name!r} keeps its data in another file; test data must hold them. "
            "Save it without external data."
        )
    if element_type not in _ELEMENT_TYPES and element_type != _BFLOAT16:
        raise BundleError(
            f"Tensor {name!r} has {dtype_name(element_type)} elements, which numpy does not have. "
            "Convert it to float32 or an 8-bit integer type."
        )
    flat = _elements(element_type, raw, typed)
    if flat.size != math.prod(dims):
        raise WireError(
            f"tensor {name[:100]!r} has {flat.size} elements, its shape {str(dims)[:100]} needs "
            f"{str(math.prod(dims))[:40]}"
        )
    return name, flat.reshape(dims)


def _bytes(number: int, value: int | memoryview) -> bytes:
    if isinstance(value, int):
        raise WireError(f"field {number} should hold bytes")
    return bytes(value)


def _elements(
    element_type: int, raw: memoryview | None, typed: dict[int, list[int | memoryview]]
) -> npt.NDArray[Any]:
    """The elements in one row, from whichever field holds them."""
    if element_type == _STRING:
        strings = [
            _bytes(_STRING_DATA, s).decode("utf-8") for s in typed.get(_STRING_DATA, [])
        ]
        return np.array(strings, dtype=object)
    if element_type == _BFLOAT16:
        bits = raw_array(raw, "<u2") if raw is not None else _integers(typed, _INT32_DATA)
        return (bits.astype(np.uint32) << 16).view(np.float32)

    dtype, field = _ELEMENT_TYPES[element_type]
    if raw is not None:
        return raw_array(raw, np.dtype(dtype).newbyteorder("<")).astype(dtype)
    if field in (_FLOAT_DATA, _DOUBLE_DATA):
        # Packed, the floats lie as they do in raw_data; unpacked, each is a number of 4 or 8 bytes.
        size = 4 if field == _FLOAT_DATA else 8
        row = b"".join(
            bytes(v) if isinstance(v, memoryview) else v.to_bytes(size, "little")
            for v in typed.get(field, [])
        )
        return raw_array(memoryview(row), np.dtype(dtype).newbyteorder("<")).astype(dtype)
    integers = _integers(typed, field)
    if dtype == "float16":
        return integers.astype(np.uint16).view(np.float16)
    # A negative int32 is written sign-extended to 64 bits: narrowing keeps its low bits.
    return integers.astype(np.int64).astype(dtype)


def raw_array(raw: memoryview, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The elements of a little-endian row of bytes, copied, or WireError if they do not fit."""
    size = np.dtype(dtype).itemsize
    if len(raw) % size:
        raise WireError(f"{len(raw)} bytes of data are not a multiple of {size}")
    return np.frombuffer(raw, dtype).copy()


def _integers(typed: dict[int, list[int | memoryview]], field: int) -> npt.NDArray[np.uint64]:
    rows = [
        unpack_varints(v) if isinstance(v, memoryview) else np.array([v], np.uint64)
        for v in typed.get(field, [])
    ]
    return np.concatenate(rows) if rows else np.empty(0, np.uint64)
