"""The few rules of the protobuf wire format that reading and writing ONNX data needs.

A message is a row of fields; each is a key (field number and wire type) and a value.
Reading is lazy: a field's bytes are a view of the caller's buffer, nothing is copied, so the
header of a 500 MB model costs a few page reads.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

#: What one field holds: an integer for VARINT, I64 and I32, a view of the buffer for LEN.
Field = tuple[int, int, "int | memoryview"]

VARINT, I64, LEN, I32 = 0, 1, 2, 5

_CONTINUES, _SEVEN_BITS = 0x80, 0x7F
_MAX_VARINT_BYTES = 10


class WireError(ValueError):
    """Bytes that are not a protobuf message."""


def _read_varint(data: memoryview, start: int) -> tuple[int, int]:
    value = 0
    for i in range(_MAX_VARINT_BYTES):
        if start + i >= len(data):
            raise WireError("it ends in the middle of a number")
        byte = data[start + i]
        value |= (byte & _SEVEN_BITS) << (7 * i)
        if not byte & _CONTINUES:
            return value & 0xFFFF_FFFF_FFFF_FFFF, start + i + 1
    raise WireError("a number has more than ten bytes")


def read_fields(data: memoryview) -> Iterator[Field]:
    """Yield (field number, wire type, value) of every field of one message, in file order.

    Raises:
        WireError: the bytes are not a message, or it is cut off.
    """
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise WireError("a field has the number 0")
        value: int | memoryview
        if wire_type == VARINT:
            value, position = _read_varint(data, position)
            yield number, wire_type, value
            continue
        if wire_type == LEN:
            size, position = _read_varint(data, position)
        elif wire_type in (I64, I32):
            size = 8 if wire_type == I64 else 4
        else:
            raise WireError(f"a field has the wire type {wire_type}, which ONNX does not use")
        if position + size > len(data):
            raise WireError(
                f"a field of {size} bytes is cut off after {len(data) - position} bytes"
            )
        value = data[position : position + size]
        position += size
        yield number, wire_type, value if wire_type == LEN else int.from_bytes(value, "little")


def unpack_varints(data: memoryview) -> npt.NDArray[np.uint64]:
    """All integers of a packed field, as their unsigned 64-bit patterns.

    Shape: bytes -> [number of integers]

    Raises:
        WireError: the last one is cut off, or one has more than ten bytes.
    """
    raw = np.frombuffer(data, np.uint8)
    if raw.size == 0:
        return np.empty(0, np.uint64)
    ends = np.flatnonzero(raw < _CONTINUES)
    if ends.size == 0 or ends[-1] != raw.size - 1:
        raise WireError("it ends in the middle of a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_VARINT_BYTES:
        raise WireError("a number has more than ten bytes")
    values = np.zeros(ends.size, np.uint64)
    for i in range(int(lengths.max())):
        has_byte = lengths > i
        bits = (raw[starts[has_byte] + i] & _SEVEN_BITS).astype(np.uint64)
        values[has_byte] |= bits << np.uint64(7 * i)
    return values


def encode_varint(value: int) -> bytes:
    """The wire form of one unsigned integer."""
    encoded = bytearray()
    while value >= _CONTINUES:
        encoded.append(value & _SEVEN_BITS | _CONTINUES)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_bytes(number: int, value: bytes) -> bytes:
    """The wire form of a bytes, string or message field."""
    return encode_varint(number << 3 | LEN) + encode_varint(len(value)) + value


def encode_integer(number: int, value: int) -> bytes:
    """The wire form of a non-negative integer or enum field."""
    return encode_varint(number << 3 | VARINT) + encode_varint(value)
