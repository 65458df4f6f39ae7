"""Our TensorProto against the onnx package's: every dtype, raw data and typed fields."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from onnx import TensorProto, helper, numpy_helper

from dlzoo.errors import ArgumentError, BundleError
from dlzoo.runtime.onnx_reader.tensor_proto import decode_tensor, dtype_name, encode_tensor

NUMERIC = [
    "float32",
    "float64",
    "float16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "complex64",
    "complex128",
]
ELEMENT_TYPES = {
    number: name for name, number in TensorProto.DataType.items() if name != "UNDEFINED"
}
WITH_NUMPY = {n for n in ELEMENT_TYPES if n <= TensorProto.COMPLEX128}
ARRAYS = st.sampled_from(NUMERIC).flatmap(
    lambda dtype: nps.arrays(dtype, nps.array_shapes(min_dims=0, min_side=0, max_side=4))
)


def sample(dtype: str, shape: tuple[int, ...] = (2, 3)) -> np.ndarray[Any, Any]:
    values = np.array([0, 1, 3, 100, 7, 2], np.int64) - (0 if dtype.startswith("u") else 2)
    if dtype == "bool":
        values = values % 2
    return values.reshape(shape).astype(dtype)


@given(ARRAYS)
def test_every_array_comes_back_bit_for_bit(array: np.ndarray[Any, Any]) -> None:
    name, decoded = decode_tensor(encode_tensor("x", array))
    assert name == "x"
    assert decoded.dtype == array.dtype and decoded.shape == array.shape
    assert decoded.tobytes() == array.tobytes()


@given(ARRAYS)
def test_onnx_reads_what_is_written(array: np.ndarray[Any, Any]) -> None:
    proto = TensorProto.FromString(encode_tensor("größe/0", array))
    assert proto.name == "größe/0"
    read = numpy_helper.to_array(proto)
    assert read.dtype == array.dtype and read.shape == array.shape
    assert read.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", NUMERIC)
def test_raw_data_written_by_onnx(dtype: str) -> None:
    proto = numpy_helper.from_array(sample(dtype), "t")
    assert proto.HasField("raw_data")
    name, decoded = decode_tensor(proto.SerializeToString())
    assert name == "t"
    np.testing.assert_array_equal(decoded, sample(dtype), strict=True)


@pytest.mark.parametrize("dtype", NUMERIC)
def test_typed_fields_written_by_onnx(dtype: str) -> None:
    array = sample(dtype)
    element_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    proto = helper.make_tensor("t", element_type, array.shape, array.ravel().tolist())
    assert not proto.HasField("raw_data")
    _, decoded = decode_tensor(proto.SerializeToString())
    np.testing.assert_array_equal(decoded, array, strict=True)


def test_bfloat16_is_widened_without_loss() -> None:
    exact = np.array([1.0, -2.5, 3.140625, np.inf], np.float32)
    typed = helper.make_tensor("t", TensorProto.BFLOAT16, [4], exact.tolist())
    raw = helper.make_tensor(
        "t",
        TensorProto.BFLOAT16,
        [4],
        (exact.view(np.uint32) >> 16).astype("<u2").tobytes(),
        raw=True,
    )
    for proto in (typed, raw):
        np.testing.assert_array_equal(decode_tensor(proto.SerializeToString())[1], exact)


def test_strings_come_back() -> None:
    words = np.array([["a", "größer"], ["", "d"]], dtype=object)
    proto = helper.make_tensor(
        "s", TensorProto.STRING, [2, 2], [w.encode() for w in words.flat]
    )
    np.testing.assert_array_equal(decode_tensor(proto.SerializeToString())[1], words)
    read = numpy_helper.to_array(TensorProto.FromString(encode_tensor("s", words)))
    assert read.astype(str).tolist() == words.tolist()


@pytest.mark.parametrize(
    "number", sorted(set(ELEMENT_TYPES) - WITH_NUMPY - {TensorProto.BFLOAT16})
)
def test_element_types_without_numpy_are_refused_by_name(number: int) -> None:
    proto = TensorProto(name="w", data_type=number, dims=[2], raw_data=b"\0\0")
    wanted = ELEMENT_TYPES[number].lower()
    with pytest.raises(BundleError, match=f"'w' has {wanted} elements.*Convert it to float32"):
        decode_tensor(proto.SerializeToString())


@pytest.mark.parametrize("number", sorted(ELEMENT_TYPES))
def test_every_element_type_has_its_name(number: int) -> None:
    expected = {"FLOAT": "float32", "DOUBLE": "float64"}
    name = ELEMENT_TYPES[number]
    assert dtype_name(number) == expected.get(name, name.lower())


def test_unpacked_repeated_fields_are_read() -> None:
    # Old writers put every element into a field of its own.
    one_by_one = (
        b"\x08\x02"
        + b"\x10\x01"
        + b"".join(b"\x25" + np.float32(value).tobytes() for value in (1.5, -2.0))
    )
    assert TensorProto.FromString(one_by_one).float_data == [1.5, -2.0]
    np.testing.assert_array_equal(decode_tensor(one_by_one)[1], np.float32([1.5, -2.0]))


@given(st.binary(max_size=120))
def test_any_bytes_are_a_tensor_or_one_clear_line(data: bytes) -> None:
    try:
        decode_tensor(data)
    except BundleError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"raw_data": b"\0" * 7}, "7 bytes of data are not a multiple of 4"),
        ({"raw_data": b"\0" * 4}, r"has 1 elements, its shape \[2\] needs 2"),
        ({"data_location": TensorProto.EXTERNAL}, "keeps its data in another file"),
        ({"data_type": 99}, "element type 99"),
    ],
)
def test_damaged_tensors_are_refused(change: dict[str, Any], message: str) -> None:
    facts = {"name": "w", "data_type": 1, "dims": [2], "raw_data": b"\0" * 8, **change}
    with pytest.raises(BundleError, match=message):
        decode_tensor(onnx.TensorProto(**facts).SerializeToString())


def test_a_truncated_tensor_is_refused() -> None:
    data = encode_tensor("x", np.zeros((3, 3), np.float32))
    with pytest.raises(
        BundleError, match=r"is not a TensorProto: .* cut off .*Get the file again"
    ):
        decode_tensor(data[:-5])


def test_a_dtype_that_onnx_does_not_have_is_refused() -> None:
    with pytest.raises(
        ArgumentError, match=r"'d' has dtype datetime64\[D\].*Convert it to one of"
    ):
        encode_tensor("d", np.zeros(2, "datetime64[D]"))


def test_big_endian_arrays_are_written_little_endian() -> None:
    array = np.arange(4, dtype=">f4")
    assert encode_tensor("x", array) == encode_tensor("x", array.astype("<f4"))
