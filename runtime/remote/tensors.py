"""Tensors on their way to a server and back, checked: an answer may hold anything."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.errors import ArgumentError
from dlzoo.runtime.protocol.datatypes import (
    DATATYPES,
    NUMPY_DTYPES,
    array_from_bytes,
    bytes_from_array,
)
from dlzoo.runtime.protocol.refusal import RefusalError

#: Bytes of one answer that are believed: beyond it a shape is nonsense.
_MAX_ELEMENTS = 2**31


def datatype_of(array: npt.NDArray[Any]) -> str:
    """The protocol's name of an array's dtype.

    Raises:
        ArgumentError: it has none.
    """
    if array.dtype.kind in "OSU":
        return "BYTES"
    if array.dtype.name not in DATATYPES:
        raise ArgumentError(
            f"An array has dtype {array.dtype.name}, expected one that the protocol knows: "
            f"{', '.join(sorted(DATATYPES))}."
        )
    return DATATYPES[array.dtype.name]


def wire_bytes(datatype: str, array: npt.NDArray[Any]) -> bytes:
    """An array as the protocol's raw bytes: little-endian, row-major."""
    return bytes_from_array(datatype, array)


def answer_array(
    name: str, datatype: str, shape: tuple[int, ...], raw: bytes | memoryview
) -> npt.NDArray[Any]:
    """An output from its raw bytes.

    Raises:
        ValueError: the bytes are not those of such a tensor.
    """
    _check(name, datatype, shape)
    try:
        return array_from_bytes(name, datatype, shape, raw)
    except RefusalError as refusal:
        raise ValueError(str(refusal).replace("input", "output", 1)) from None


def answer_array_from_json(
    name: str, datatype: str, shape: tuple[int, ...], data: Any
) -> npt.NDArray[Any]:
    """An output from JSON: a list, flat or nested.

    Servers write NaN and Inf as JSON does not know them (``NaN``), or as null: both are NaN here.

    Raises:
        ValueError: the elements are not those of such a tensor.
    """
    _check(name, datatype, shape)
    dtype = NUMPY_DTYPES[datatype]
    if dtype.kind == "f":
        data = _null_as_nan(data)
    try:
        with np.errstate(over="ignore"):
            array = np.array(data, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"output {name!r} is no {datatype}: {error}") from None
    if array.size != math.prod(shape):
        raise ValueError(
            f"output {name!r} has {array.size} elements, its shape is {list(shape)}"
        )
    return array.reshape(shape)


def _null_as_nan(data: Any) -> Any:
    if isinstance(data, list):
        return [_null_as_nan(item) for item in data]
    return math.nan if data is None else data


def _check(name: str, datatype: str, shape: tuple[int, ...]) -> None:
    if datatype not in NUMPY_DTYPES:
        raise ValueError(f"output {name!r} has datatype {datatype!r}")
    if any(size < 0 for size in shape) or math.prod(shape) > _MAX_ELEMENTS:
        raise ValueError(f"output {name!r} has shape {list(shape)}")


def datatype_named(dtype: str) -> str | None:
    """The protocol's name of a manifest's dtype; None where it has none."""
    return DATATYPES.get(dtype)
