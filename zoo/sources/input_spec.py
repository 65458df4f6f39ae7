"""What a network is called with: name, shape and dtype of each input."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlzoo.errors import ArgumentError

_TEXT = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>[a-z]+\d*))?"
    r"(?::(?P<low>-?\d+)\.\.(?P<high>-?\d+))?"
)
_EXAMPLE = "name=1x3x224x224:float32, or ids=1x16:int64:0..30521"
#: What ONNX and PyTorch both have, and the proof can draw.
DTYPES = ("float32", "uint8", "int8", "int16", "int32", "int64", "bool")
_IMAGE_RANK = 4


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input: its name, the shape of an example with the batch first, and its dtype.

    ``low`` and ``high`` bound the values of an integer input, both included: a vocabulary, say.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    low: int = 0
    high: int = 1

    @property
    def is_image(self) -> bool:
        """Whether it is ``[N, C, H, W]`` float32."""
        return len(self.shape) == _IMAGE_RANK and self.dtype == "float32"

    def example(self, shape: Sequence[int] | None = None) -> Tensor:
        """A tensor of zeros, or of the lowest value allowed."""
        return torch.full(
            tuple(shape or self.shape), self.low, dtype=getattr(torch, self.dtype)
        )


def parse_input_spec(text: str, default_name: str = "input") -> InputSpec:
    """Read ``name=1x3x224x224:float32``; name and dtype can be left out.

    >>> parse_input_spec("x=1x3x32x32")
    InputSpec(name='x', shape=(1, 3, 32, 32), dtype='float32', low=0, high=1)
    >>> parse_input_spec("ids=1x16:int64:0..999").high
    999

    Raises:
        ArgumentError: it is not of that form.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ArgumentError(
            f"`inputs` got {text!r}, expected NAME=SHAPE:DTYPE. Write for example {_EXAMPLE}."
        )
    dtype = match["dtype"] or "float32"
    if dtype not in DTYPES:
        raise ArgumentError(
            f"`inputs` got the dtype {dtype!r} in {text!r}, expected one of {', '.join(DTYPES)}. "
            f"Write for example {_EXAMPLE}."
        )
    shape = tuple(int(size) for size in match["shape"].split("x"))
    if 0 in shape:
        raise ArgumentError(
            f"`inputs` got the shape {match['shape']} in {text!r}, expected sizes from 1 up. "
            f"Write for example {_EXAMPLE}."
        )
    values = {}
    if match["low"] is not None:
        values = {"low": int(match["low"]), "high": int(match["high"])}
        if dtype in ("float32", "bool") or values["low"] > values["high"]:
            raise ArgumentError(
                f"`inputs` got the values {match['low']}..{match['high']} in {text!r}, expected "
                f"LOW..HIGH of an integer input. Write for example {_EXAMPLE}."
            )
    return InputSpec(name=match["name"] or default_name, shape=shape, dtype=dtype, **values)


def require_distinct_names(specs: Sequence[InputSpec]) -> None:
    """Two inputs of one name cannot be told apart.

    Raises:
        ArgumentError: there are two.
    """
    names = [spec.name for spec in specs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ArgumentError(
            f"`inputs` got the name {twice[0]!r} twice, expected a name for each input. Write "
            "for example image=1x3x64x64 and mask=1x1x64x64."
        )
