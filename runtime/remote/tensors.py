"""Tensors sent to a server and read from its answers, which may hold anything and are checked."""

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

#: The most elements of one output: a larger shape is taken for nonsense.
_MAX_ELEMENTS = 2**31


def datatype_of(array: npt.NDArray[Any]) -> str:
    """Look up the protocol's name of an array's dtype.

    Raises:
        ArgumentError: the protocol lacks the dtype.
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
    """Encode an array as the protocol's raw bytes: little-endian, row-major."""
    return bytes_from_array(datatype, array)


def answer_array(
    name: str, datatype: str, shape: tuple[int, ...], raw: bytes | memoryview
) -> npt.NDArray[Any]:
    """Decode an output from its raw bytes.

    Raises:
        ValueError: the bytes do not fit the datatype and the shape.
    """
    _check(name, datatype, shape)
    try:
        return array_from_bytes(name, datatype, shape, raw)
    except RefusalError as refusal:
        raise ValueError(str(refusal).replace("input", "output", 1)) from None


def answer_array_from_json(
    name: str, datatype: str, shape: tuple[int, ...], data: Any
) -> npt.NDArray[Any]:
    """Decode an output from JSON: a list, flat or nested.

    JSON has no NaN and Inf: servers write them as ``NaN`` and ``Infinity`` all the same, or as null,
    which is read as NaN.

    Raises:
        ValueError: the elements do not fit the datatype and the shape.
    """
    _check(name, datatype, shape)
    dtype = NUMPY_DTYPES[datatype]
    if dtype.kind == "f":
        data = _null_as_nan(data)
    try:
        with np.errstate(over="ignore"):
            array = np.array(data, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"output {name!r} is not {datatype}: {error}") from None
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
    """Look up the protocol's name of a manifest's dtype; None if it lacks it."""
    return DATATYPES.get(dtype)
