"""Small faults put into a network on purpose: would the proof notice them?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dlzoo.errors import ExportError
from dlzoo.export.reference.float32_ways import run_in_float32

#: Bit patterns: the integer of the same width, and the bit of the mantissa to flip.
#: 2^-10 of a value's power of two is a relative fault of 0.5e-3 to 1e-3: a thousand times
#: float32's roundoff, and far below what top-1 accuracy or a tolerance of 1e-3 would show.
#: bfloat16 has no such bit; its last one is 2^-7.
_FLIPPED_BIT = {
    torch.float64: (torch.int64, 52 - 10),
    torch.float32: (torch.int32, 23 - 10),
    torch.float16: (torch.int16, 10 - 10),
    torch.bfloat16: (torch.int16, 7 - 7),
}
#: What is added to a tensor of zeros, which has no relative fault: the same share of 1.
_FAULT_OF_ZERO = 2.0**-10
#: A tensor is as good as zeros where all is smaller than this: 2^-10 of that is float32's
#: roundoff of 1, so no float32 arithmetic behind values of order 1 can show the fault. Weight
#: decay leaves such tensors (MobileNetV2's published weights have 34: biases and running means
#: around its linear bottlenecks, at most 1.5e-6 where all others reach 1.5e-3).
_NEARLY_ZERO = 2.0**-14
#: Multiply-adds to spend on looking for faults: 3 s of float32 on two cores.
_BUDGET_MULTIPLY_ADDS = 190e9
_MIN_TENSORS = 8
#: Enough to see a tenth of all faults go unnoticed; small layers cost more time than their
#: multiply-adds say (MobileNetV2 has 314 tensors).
_MAX_TENSORS = 40


def num_tensors_to_try(num_multiply_adds: int, num_tensors: int) -> int:
    """How many tensors to fault: all where a run is cheap, a stated sample where it is not.

    It depends on the network alone, so that every machine proves the same.

    >>> num_tensors_to_try(15_470_264_320, 32), num_tensors_to_try(416_520, 10)
    (12, 10)
    """
    affordable = int(_BUDGET_MULTIPLY_ADDS // max(1, num_multiply_adds))
    return min(num_tensors, max(_MIN_TENSORS, min(_MAX_TENSORS, affordable)))


def iter_faulty_outputs(
    module: nn.Module,
    inputs: Mapping[str, npt.NDArray[Any]],
    *,
    output_names: Sequence[str],
    seed: int,
    max_tensors: int | None,
    parameters: Sequence[str] | None = None,
) -> Iterator[tuple[str, dict[str, npt.NDArray[Any]]]]:
    """Put a small fault into one tensor at a time, and yield its name and what then comes out.

    Every value of the tensor changes by 2^-10 of its power of two, up or down as its own bits
    fall, so that no normalization behind it cancels the fault. It is undone exactly, also when
    something goes wrong, before the outputs are yielded.

    Args:
        module: in eval mode.
        inputs: by name, as in a golden set.
        output_names: one for each tensor that the network gives.
        seed: draws the sample.
        max_tensors: try at most so many, spread evenly, the first and the last among them; None
            tries all.
        parameters: names of the tensors that reach an output, None for all. (A fault in an
            auxiliary head that is not exported cannot show.)

    Raises:
        ExportError: the network has no floating-point parameter.
    """
    tensors = _float_tensors(module)
    if parameters is not None:
        tensors = {name: tensors[name] for name in tensors if name in set(parameters)}
    if not tensors:
        raise ExportError(
            f"{type(module).__name__} has no floating-point parameter to put a fault into. "
            "Nothing of it can be proved this way."
        )
    names = _spread_sample(list(tensors), max_tensors, seed)
    arguments = {key: torch.from_numpy(value) for key, value in inputs.items()}
    for name in names:
        with _fault_in(tensors[name]):
            outputs = run_in_float32(module, arguments, output_names)
            # What the network hands out may be the very tensor that is about to be mended.
            outputs = {key: value.copy() for key, value in outputs.items()}
        yield name, outputs


def iter_gross_outputs(
    module: nn.Module,
    inputs: Mapping[str, npt.NDArray[Any]],
    *,
    output_names: Sequence[str],
    tensors: Sequence[str],
) -> Iterator[tuple[str, dict[str, npt.NDArray[Any]]]]:
    """What comes out when a tensor is doubled and 1 is added: nothing changes if it has no effect.

    A bias before an instance normalization has none: the mean takes it away.

    Args:
        module: in eval mode.
        inputs: by name, as in a golden set.
        output_names: one for each tensor that the network gives.
        tensors: by their names in the state dict, one after the other.
    """
    known = _float_tensors(module)
    arguments = {key: torch.from_numpy(value) for key, value in inputs.items()}
    for name in tensors:
        tensor = known[name]
        values = tensor.clone()
        tensor.mul_(2).add_(1)
        try:
            outputs = run_in_float32(module, arguments, output_names)
            outputs = {key: value.copy() for key, value in outputs.items()}
        finally:
            tensor.copy_(values)
        yield name, outputs


def _float_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers in the order of the modules, each tensor once."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path, child in module.named_modules():
        own = [*child.named_parameters(recurse=False), *child.named_buffers(recurse=False)]
        for name, tensor in own:
            if tensor.dtype in _FLIPPED_BIT and tensor.numel() and id(tensor) not in seen:
                seen.add(id(tensor))
                tensors[f"{path}.{name}" if path else name] = tensor.detach()
    return tensors


def _spread_sample(names: list[str], max_tensors: int | None, seed: int) -> list[str]:
    """One of each of ``max_tensors`` equal stretches, drawn: a fixed step could hit only biases."""
    if max_tensors is None or max_tensors >= len(names):
        return names
    if max_tensors < 2:
        return names[:max_tensors]
    generator = np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, len(names)]))
    )
    edges = np.linspace(1, len(names) - 1, max_tensors - 1).astype(int)
    middle = [int(generator.integers(a, b)) for a, b in pairwise(edges)]
    return [names[i] for i in (0, *middle, len(names) - 1)]


@contextmanager
def _fault_in(tensor: Tensor) -> Iterator[None]:
    """Flip one bit of every value; flipping it again restores the tensor without a copy.

    A tensor of zeros, or as good as zeros, has no bits to flip that count: it is replaced.
    """
    if bool((tensor.abs() < _NEARLY_ZERO).all()):
        values = tensor.clone()
        tensor.fill_(_FAULT_OF_ZERO)
        try:
            yield
        finally:
            tensor.copy_(values)
        return
    integer, bit = _FLIPPED_BIT[tensor.dtype]
    bits = tensor.view(integer)
    bits.bitwise_xor_(1 << bit)
    try:
        yield
    finally:
        bits.bitwise_xor_(1 << bit)
