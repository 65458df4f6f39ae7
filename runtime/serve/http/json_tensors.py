"""Tensors as JSON: a flat list in row-major order, or nested lists of the tensor's shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from dlzoo.runtime.protocol.datatypes import (
    NUMPY_DTYPES,
    Array,
    array_from_bytes,
    bytes_from_array,
)
from dlzoo.runtime.protocol.refusal import RefusalError

#: The Python types of JSON values that are allowed for each kind of dtype.
_JSON_TYPES: dict[str, frozenset[type]] = {
    "b": frozenset([bool]),
    "i": frozenset([int]),
    "u": frozenset([int]),
    "f": frozenset([int, float]),
    "O": frozenset([str]),
}
_IN_WORDS = {
    "b": "true or false",
    "i": "whole numbers",
    "u": "whole numbers",
    "f": "numbers",
    "O": "texts",
}


def array_from_json(name: str, datatype: str, shape: tuple[int, ...], data: object) -> Array:
    """Decode a tensor from the ``data`` of a request.

    No value is converted: 1.0 is not accepted as a whole number, nor true as 1, and a value out of
    the dtype's range is refused, not turned into an infinity.

    Raises:
        RefusalError: ``data`` does not have the shape's number of elements, or their type.
    """
    if not isinstance(data, list):
        raise RefusalError(f"input {name!r} has no list 'data', and no 'binary_data_size'")
    flat = _flattened(name, data, shape)
    dtype = NUMPY_DTYPES[datatype]
    wrong_types = set(map(type, flat)) - _JSON_TYPES[dtype.kind]
    if wrong_types:
        value = next(item for item in flat if type(item) in wrong_types)
        if dtype.kind in "iu" and type(value) is float and abs(value) >= 2**63:
            raise _out_of_range(name, datatype, value)
        raise RefusalError(
            f"input {name!r}: {str(value)[:40]!r} is not of datatype {datatype}, expected "
            f"{_IN_WORDS[dtype.kind]}"
        )
    if dtype.kind == "O":
        array = np.empty(len(flat), np.object_)
        array[:] = [text.encode("utf-8", "surrogatepass") for text in flat]
        return array.reshape(shape)
    if dtype.kind in "iu" and flat:
        limits = np.iinfo(dtype)
        for value in (min(flat), max(flat)):
            if not limits.min <= value <= limits.max:
                raise _out_of_range(name, datatype, value)
    if dtype.kind == "f":
        return _floats(name, datatype, flat).reshape(shape)
    return np.array(flat, dtype).reshape(shape)


def json_from_array(datatype: str, array: Array) -> list[Any]:
    """Encode the elements of a tensor as JSON values, row-major.

    Raises:
        RefusalError: JSON cannot hold them: NaN, infinities, or bytes that are not UTF-8.
    """
    flat = array.reshape(-1)
    if datatype == "BYTES":
        try:
            return [item.decode() if isinstance(item, bytes) else str(item) for item in flat]
        except UnicodeDecodeError:
            raise RefusalError(
                "an output holds bytes that are not UTF-8, which JSON cannot hold. "
                "Ask for binary data"
            ) from None
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        raise RefusalError(
            "an output holds NaN or infinities, which JSON cannot hold. Ask for binary data"
        )
    return list(flat.tolist())


def _flattened(name: str, data: list[Any], shape: Sequence[int]) -> list[Any]:
    num_elements = math.prod(shape)
    if not data or not isinstance(data[0], list):
        if len(data) != num_elements:
            raise RefusalError(
                f"input {name!r} has {len(data)} elements of data, its shape needs {num_elements}"
            )
        return data
    for axis, size in enumerate(shape):
        if axis:
            if not all(type(item) is list and len(item) == size for item in data):
                raise RefusalError(f"input {name!r}: its nested data do not have its shape")
            data = list(chain.from_iterable(data))
        elif len(data) != size:
            raise RefusalError(f"input {name!r}: its nested data do not have its shape")
    return data


def _floats(name: str, datatype: str, flat: list[Any]) -> Array:
    try:
        exact = np.array(flat, np.float64)
    except OverflowError:  # a whole number beyond 1.8e308
        raise _out_of_range(name, datatype, max(flat, key=abs)) from None
    dtype = NUMPY_DTYPES[datatype]
    # BF16 has float32's range.
    with np.errstate(over="ignore"):
        array = exact.astype(dtype)
    if datatype == "BF16":
        array = _rounded_to_bfloat16(array)
    if not np.isfinite(array).all():
        raise _out_of_range(name, datatype, flat[int(np.argmin(np.isfinite(array)))])
    return array


def _rounded_to_bfloat16(array: Array) -> Array:
    return array_from_bytes("", "BF16", (array.size,), bytes_from_array("BF16", array))


def _out_of_range(name: str, datatype: str, value: object) -> RefusalError:
    # A whole number may have thousands of digits, which Python refuses to format.
    is_long = isinstance(value, int) and value.bit_length() > 128
    shown = "a number of more than 128 bits" if is_long else str(value)
    return RefusalError(f"input {name!r}: {shown} is outside the range of {datatype}")
