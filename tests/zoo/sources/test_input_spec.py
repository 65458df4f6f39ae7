"""What --input says, and what it refuses in one line."""

import pytest
import torch

from dlzoo.errors import ArgumentError
from dlzoo.zoo.sources.input_spec import InputSpec, parse_input_spec, require_distinct_names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=1x3x32x32:float32", InputSpec(name="x", shape=(1, 3, 32, 32))),
        ("2x7", InputSpec(name="input", shape=(2, 7))),
        ("mask=4:bool", InputSpec(name="mask", shape=(4,), dtype="bool")),
        (
            "ids=1x16:int64:5..30521",
            InputSpec(name="ids", shape=(1, 16), dtype="int64", low=5, high=30521),
        ),
    ],
)
def test_a_text_becomes_a_spec(text: str, expected: InputSpec) -> None:
    spec = parse_input_spec(text)
    assert spec == expected
    example = spec.example()
    assert example.shape == expected.shape
    assert example.dtype == getattr(torch, expected.dtype)
    assert (example == expected.low).all()


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("x=1,3,32,32", "got 'x=1,3,32,32', expected NAME=SHAPE:DTYPE"),
        ("x=", "expected NAME=SHAPE:DTYPE"),
        ("", "expected NAME=SHAPE:DTYPE"),
        ("1x=3", "expected NAME=SHAPE:DTYPE"),
        ("x=1x0x3", "got the shape 1x0x3 in 'x=1x0x3', expected sizes from 1 up"),
        (
            "x=1x3:float16",
            "got the dtype 'float16' in 'x=1x3:float16', expected one of float32",
        ),
        ("x=1x3:float32:0..5", "got the values 0..5"),
        ("x=1x3:int64:9..5", "got the values 9..5"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, finding: str) -> None:
    with pytest.raises(ArgumentError) as error:
        parse_input_spec(text)
    assert finding in str(error.value)
    assert "Write for example name=1x3x224x224:float32" in str(error.value)
    assert "\n" not in str(error.value)


def test_two_inputs_of_one_name_are_refused() -> None:
    specs = [InputSpec(name="x", shape=(1,)), InputSpec(name="x", shape=(2,))]
    with pytest.raises(ArgumentError, match=r"^`inputs` got the name 'x' twice"):
        require_distinct_names(specs)
