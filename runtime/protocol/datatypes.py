"""The protocol's element types: their NumPy dtypes, and their bytes on the wire.

Source: Open Inference Protocol, "Tensor Data Types"; Triton's binary tensor data extension.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.runtime.protocol.refusal import RefusalError

Array = npt.NDArray[Any]

#: NumPy has no bfloat16: it is widened to float32, which holds every value. BYTES are objects.
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(np.float32),
    "BYTES": np.dtype(np.object_),
}
#: Bytes of one element; for BYTES the least, which is the length field of an empty one.
ITEM_SIZES = {name: dtype.itemsize for name, dtype in NUMPY_DTYPES.items()} | {
    "BF16": 2,
    "BYTES": 4,
}
#: A manifest's dtypes by the protocol's names.
DATATYPES = {
    dtype.name: name for name, dtype in NUMPY_DTYPES.items() if name not in ("BF16", "BYTES")
} | {"bfloat16": "BF16", "string": "BYTES"}

#: The most axes that an array of NumPy 1 can have.
_MAX_RANK = 32
_IS_LITTLE_ENDIAN = sys.byteorder == "little"


def checked_shape(name: str, shape: object) -> tuple[int, ...]:
    """Check a tensor's shape from a request: sizes from 0 up, with fewer than 2^63 elements.

    Raises:
        RefusalError: it is not a list of whole numbers from 0 up, or has too many elements.
    """
    if not isinstance(shape, Sequence) or isinstance(shape, str) or len(shape) > _MAX_RANK:
        raise RefusalError(
            f"input {name!r}: 'shape' should be a list of at most {_MAX_RANK} sizes"
        )
    for size in shape:
        if type(size) is not int or size < 0:
            raise RefusalError(
                f"input {name!r}: 'shape' holds {str(size)[:40]!r}, expected whole numbers from "
                "0 up"
            )
    if math.prod(shape) >= 2**63:
        raise RefusalError(
            f"input {name!r}: 'shape' {_short(shape)} has 2^63 elements or more"
        )
    return tuple(shape)


def require_datatype(name: str, datatype: object) -> str:
    """Make sure that a datatype is one of the protocol's.

    Raises:
        RefusalError: it is not.
    """
    if not isinstance(datatype, str) or datatype not in NUMPY_DTYPES:
        raise RefusalError(
            f"input {name!r} has datatype {str(datatype)[:40]!r}, expected one of "
            f"{', '.join(NUMPY_DTYPES)}"
        )
    return datatype


def array_from_bytes(
    name: str, datatype: str, shape: tuple[int, ...], raw: bytes | memoryview
) -> Array:
    """Decode a tensor from its bytes: little-endian, row-major, without padding.

    Raises:
        RefusalError: the number of bytes does not fit the shape, a BOOL is neither 0 nor 1, or the
            lengths inside BYTES do not add up.
    """
    num_elements = math.prod(shape)
    if datatype == "BYTES":
        return _array_from_byte_strings(name, num_elements, raw).reshape(shape)
    expected = num_elements * ITEM_SIZES[datatype]
    if len(raw) != expected:
        raise RefusalError(
            f"input {name!r} has {len(raw)} bytes of data, expected {expected} for {datatype} "
            f"{_short(shape)}"
        )
    if datatype == "BF16":
        bits = np.frombuffer(raw, "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
    if datatype == "BOOL":
        flags = np.frombuffer(raw, np.uint8)
        if flags.size and flags.max() > 1:
            raise RefusalError(
                f"input {name!r}: a BOOL has value {flags.max()}, expected 0 or 1"
            )
        return flags.view(np.bool_).reshape(shape)
    array: Array = np.frombuffer(raw, NUMPY_DTYPES[datatype].newbyteorder("<"))
    if not _IS_LITTLE_ENDIAN:
        array = array.astype(NUMPY_DTYPES[datatype])
    return array.reshape(shape)


def bytes_from_array(datatype: str, array: Array) -> bytes:
    """Encode a tensor as :func:`array_from_bytes` reads it."""
    if datatype == "BYTES":
        items = [_as_bytes(item) for item in array.reshape(-1)]
        return b"".join(
            part for item in items for part in (struct.pack("<I", len(item)), item)
        )
    if datatype == "BF16":
        return _bfloat16_bits(array).astype("<u2").tobytes()
    if not _IS_LITTLE_ENDIAN:
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.tobytes()


def _array_from_byte_strings(
    name: str, num_elements: int, raw: bytes | memoryview
) -> npt.NDArray[np.object_]:
    data = bytes(raw)
    # Checked before anything is allocated: every element takes at least four bytes.
    if num_elements * ITEM_SIZES["BYTES"] > len(data):
        raise RefusalError(
            f"input {name!r} has {len(data)} bytes of data, too few for {num_elements} BYTES elements"
        )
    items: list[bytes] = []
    place = 0
    while place < len(data) and len(items) < num_elements:
        start = place + 4
        size = int.from_bytes(data[place:start], "little")
        if start + size > len(data):
            break
        items.append(data[start : start + size])
        place = start + size
    if len(items) != num_elements or place != len(data):
        raise RefusalError(
            f"input {name!r}: its {len(data)} bytes of data are not {num_elements} BYTES elements, "
            "each a length in 4 bytes and as many bytes of content"
        )
    array = np.empty(num_elements, np.object_)
    array[:] = items
    return array


def _bfloat16_bits(array: Array) -> npt.NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to even; a NaN stays one."""
    bits = np.ascontiguousarray(array, np.float32).reshape(-1).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    rounded = np.where(is_nan, (bits >> 16) | np.uint32(0x40), rounded)
    return rounded.astype(np.uint16)


def _as_bytes(item: object) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()


def _short(shape: Sequence[int]) -> str:
    text = str(list(shape))
    return text if len(text) <= 80 else f"{text[:80]}…"
