import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlzoo.runtime.onnx_reader.protobuf_wire import (
    LEN,
    VARINT,
    WireError,
    encode_bytes,
    encode_integer,
    encode_varint,
    read_fields,
    unpack_varints,
)

UINT64 = st.integers(0, 2**64 - 1)


@given(st.lists(UINT64))
def test_packed_integers_come_back(values: list[int]) -> None:
    packed = b"".join(encode_varint(value) for value in values)
    assert unpack_varints(memoryview(packed)).tolist() == values


@given(st.integers(1, 2**20), UINT64, st.binary(max_size=300))
def test_fields_come_back(number: int, integer: int, text: bytes) -> None:
    message = encode_integer(number, integer) + encode_bytes(number + 1, text)
    assert list(read_fields(memoryview(message))) == [
        (number, VARINT, integer),
        (number + 1, LEN, text),
    ]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        fields = list(read_fields(memoryview(data)))
    except WireError:
        return
    assert all(number > 0 for number, _, _ in fields)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80", "ends in the middle of a number"),
        (b"\x08" + b"\xff" * 11, "more than ten bytes"),
        (b"\x0a\x05abc", "a field of 5 bytes is cut off after 3 bytes"),
        (b"\x0b", "wire type 3"),
        (b"\x00\x00", "the number 0"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        list(read_fields(memoryview(data)))


@pytest.mark.parametrize("data", [b"\x80", b"\x01\x80", b"\x80" * 11 + b"\x01"])
def test_packed_integers_that_are_cut_off_or_too_long_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        unpack_varints(memoryview(data))
