"""Tensors on the wire: every datatype is sent and read back, anything else is refused."""

import json
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dlzoo.runtime.protocol.datatypes import (
    NUMPY_DTYPES,
    array_from_bytes,
    bytes_from_array,
    checked_shape,
    require_datatype,
)
from dlzoo.runtime.protocol.refusal import RefusalError
from dlzoo.runtime.serve.http.json_tensors import array_from_json, json_from_array
from tests.support.served_bundles import NUMERIC_DATATYPES

Array = np.ndarray[Any, Any]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@pytest.mark.parametrize("datatype", NUMERIC_DATATYPES)
@settings(max_examples=20)
@given(data=st.data())
def test_bytes_come_back(datatype: str, data: st.DataObject) -> None:
    array = data.draw(hnp.arrays(NUMERIC_DATATYPES[datatype], SHAPES))
    raw = bytes_from_array(datatype, array)
    back = array_from_bytes("x", datatype, array.shape, raw)
    assert back.dtype == array.dtype and back.shape == array.shape
    assert back.tobytes() == array.tobytes()  # NaN, too, bit by bit


@pytest.mark.parametrize("datatype", NUMERIC_DATATYPES)
@settings(max_examples=20)
@given(data=st.data())
def test_json_comes_back_flat_and_nested(datatype: str, data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=3))
    dtype = np.dtype(NUMERIC_DATATYPES[datatype])
    elements = None
    if dtype.kind == "f":
        elements = st.floats(
            allow_nan=False,
            allow_infinity=False,
            width=dtype.itemsize * 8,  # type: ignore[arg-type]
        )
    array = data.draw(hnp.arrays(dtype, shape, elements=elements))
    for document in (json_from_array(datatype, array), array.tolist()):
        back = array_from_json("x", datatype, shape, json.loads(json.dumps(document)))
        assert back.dtype == array.dtype and np.array_equal(back, array)


@given(st.lists(st.binary(max_size=9), max_size=7))
def test_byte_strings_come_back(items: list[bytes]) -> None:
    array = np.empty(len(items), np.object_)
    array[:] = items
    raw = bytes_from_array("BYTES", array)
    assert len(raw) == sum(4 + len(item) for item in items)
    assert list(array_from_bytes("x", "BYTES", (len(items),), raw)) == items


@given(st.lists(st.text(max_size=9), min_size=1, max_size=7))
def test_texts_come_back_as_json(items: list[str]) -> None:
    array = array_from_json("x", "BYTES", (len(items),), items)
    assert json_from_array("BYTES", array) == items


@given(hnp.arrays(np.float32, (7,)))
def test_bfloat16_rounds_as_others_round_it(array: Array) -> None:
    back = array_from_bytes("x", "BF16", (7,), bytes_from_array("BF16", array))
    with np.errstate(all="ignore"):
        expected = array.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(back, expected, equal_nan=True)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "message"),
    [
        ("FP32", (2,), b"\0" * 7, "7 bytes of data, expected 8 for FP32 [2]"),
        ("FP32", (2,), b"\0" * 12, "12 bytes of data, expected 8"),
        ("FP64", (2**31, 2**31), b"", "expected 36893488147419103232"),
        ("BOOL", (2,), b"\1\2", "a BOOL has value 2"),
        ("BYTES", (2**40,), b"\0" * 8, "too few for 1099511627776 BYTES elements"),
        ("BYTES", (1,), b"\5\0\0\0abcd", "are not 1 BYTES elements"),
        ("BYTES", (1,), b"\1\0\0\0ab", "are not 1 BYTES elements"),
        ("BYTES", (1,), b"\xff\xff\xff\xffabcd", "are not 1 BYTES elements"),
        ("BYTES", (1,), b"\0\0", "too few for 1 BYTES elements"),
    ],
)
def test_wrong_bytes_are_refused(
    datatype: str, shape: tuple[int, ...], raw: bytes, message: str
) -> None:
    with pytest.raises(RefusalError) as caught:
        array_from_bytes("x", datatype, shape, raw)
    assert message in str(caught.value) and "'x'" in str(caught.value)


@given(
    st.sampled_from(list(NUMPY_DTYPES)),
    st.lists(st.integers(0, 6), max_size=4),
    st.binary(max_size=200),
)
def test_any_bytes_are_read_or_refused(datatype: str, shape: list[int], raw: bytes) -> None:
    try:
        array = array_from_bytes("x", datatype, tuple(shape), raw)
    except RefusalError:
        return
    assert array.shape == tuple(shape)
    assert bytes_from_array(datatype, array) == raw


HUGE = 10**400


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FP32", (2,), [1.0], "has 1 elements of data, its shape needs 2"),
        ("FP32", (2,), [], "has 0 elements of data"),
        ("FP32", (1,), None, "has no list 'data'"),
        ("FP32", (1,), "AAAA", "has no list 'data'"),
        ("FP32", (1,), [True], "'True' is not of datatype FP32, expected numbers"),
        ("FP32", (1,), [None], "'None' is not of datatype FP32"),
        ("FP32", (1,), ["1"], "'1' is not of datatype FP32"),
        ("FP32", (1,), [1e39], "1e+39 is outside the range of FP32"),
        ("FP32", (2,), [0.0, -HUGE], "a number of more than 128 bits is outside the range"),
        ("FP16", (1,), [65520.0], "65520.0 is outside the range of FP16"),
        ("BF16", (1,), [3.4e38], "3.4e+38 is outside the range of BF16"),
        ("FP64", (1,), [math.inf], "inf is outside the range of FP64"),
        ("INT32", (1,), [1.0], "'1.0' is not of datatype INT32, expected whole numbers"),
        ("INT32", (1,), [2**31], "2147483648 is outside the range of INT32"),
        ("UINT8", (1,), [-1], "-1 is outside the range of UINT8"),
        ("INT64", (1,), [HUGE], "outside the range of INT64"),
        ("BOOL", (1,), [1], "'1' is not of datatype BOOL, expected true or false"),
        ("BYTES", (1,), [1], "'1' is not of datatype BYTES, expected texts"),
        ("FP32", (2, 2), [[1, 2], [3]], "nested data do not have its shape"),
        ("FP32", (2, 2), [[1, 2], 3], "nested data do not have its shape"),
        ("FP32", (2, 2), [[1, 2]], "nested data do not have its shape"),
        ("FP32", (4,), [[1, 2], [3, 4]], "nested data do not have its shape"),
        ("FP32", (2, 2), [[[1, 2], [3, 4]]], "nested data do not have its shape"),
        ("FP32", (2, 1), [[[1]], [[2]]], "is not of datatype FP32"),
    ],
)
def test_wrong_json_is_refused(
    datatype: str, shape: tuple[int, ...], data: object, message: str
) -> None:
    with pytest.raises(RefusalError) as caught:
        array_from_json("x", datatype, shape, data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (None, "should be a list"),
        ("12", "should be a list"),
        ([1] * 33, "at most 32 sizes"),
        ([-1], "'-1', expected whole numbers from 0 up"),
        ([1.0], "'1.0'"),
        ([True], "'True'"),
        ([[1]], "'[1]'"),
        ([2**32, 2**32], "has 2^63 elements or more"),
        ([2**63], "has 2^63 elements or more"),
    ],
)
def test_wrong_shapes_are_refused(shape: object, message: str) -> None:
    with pytest.raises(RefusalError) as caught:
        checked_shape("x", shape)
    assert message in str(caught.value)


def test_a_datatype_of_no_protocol_is_refused() -> None:
    for datatype in ("float32", "FP8", None, 3, ["FP32"]):
        with pytest.raises(RefusalError, match="expected one of BOOL, UINT8"):
            require_datatype("x", datatype)


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("FP32", np.array([1, np.nan], np.float32)),
        ("FP64", np.array([-np.inf])),
        ("BYTES", np.array([b"\xff"], np.object_)),
    ],
)
def test_json_answers_hold_only_what_json_can(datatype: str, array: Array) -> None:
    with pytest.raises(RefusalError, match="Ask for binary data"):
        json_from_array(datatype, array)
