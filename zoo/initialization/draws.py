"""Random draws that are the same on every machine.

torch's own ``normal_`` and ``uniform_`` depend in the last bit on the processor: one seed gives
different weights with AVX2 than without. Here the bits come from PCG64, whose stream NumPy
promises to keep, and become floats by operations that IEEE 754 rounds in only one way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: Number of draws at once: 256 KiB of random bits fit the second-level cache.
_CHUNK = 2**17
#: A uniform variable on an interval of width 1 has standard deviation 1/√12.
_WIDTH_PER_STD = math.sqrt(12.0)
_NUM_LEVELS = 2**16


class PortableBits:
    """A stream of uniform draws with mean 0 and width 1, equal on all machines.

    ``u = (k + 1/2) / 2^16`` with k a 16-bit integer: exact in float32.

    Source: O'Neill 2014, "PCG: A Family of Simple Fast Space-Efficient Statistically Good
    Algorithms for Random Number Generation"; NumPy NEP 19 (bit streams do not change).
    """

    def __init__(self, *seed: int) -> None:
        self._generator = np.random.PCG64(np.random.SeedSequence(seed))

    def levels(self, count: int) -> npt.NDArray[np.float32]:
        """``count`` draws of k + 1/2, k uniform over -2^15 … 2^15 - 1."""
        words = self._generator.random_raw(-(-count // 4)).astype("<u8", copy=False)
        drawn = words.view("<i2")[:count].astype(np.float32)
        drawn += np.float32(0.5)
        return drawn

    def fill(self, tensor: Tensor, mean: float, width: float) -> Tensor:
        """Fill in place with draws from [mean - width/2, mean + width/2]."""
        with torch.no_grad():
            is_plain = tensor.dtype == torch.float32 and tensor.is_contiguous()
            plain = tensor if is_plain else torch.empty(tensor.shape, dtype=torch.float32)
            flat = plain.detach().numpy().reshape(-1)
            for start in range(0, flat.size, _CHUNK):
                chunk = flat[start : start + _CHUNK]
                # Two roundings, one at a time, never a fused multiply-add.
                np.multiply(
                    self.levels(chunk.size), np.float32(width / _NUM_LEVELS), out=chunk
                )
                if mean:
                    chunk += np.float32(mean)
            if not is_plain:
                tensor.copy_(plain)
        return tensor

    def uniform(self, shape: Iterable[int], *, std: float = 1.0) -> Tensor:
        """A float32 tensor of mean 0 and the given standard deviation."""
        return self.fill(torch.empty(tuple(shape)), 0.0, std * _WIDTH_PER_STD)


class PortableDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, ``normal_`` and ``uniform_`` draw from :class:`PortableBits`.

    A network built under it keeps the mean and variance of every tensor that its builder chose,
    but normal distributions become uniform ones with the same mean and variance.

    Args:
        seed: determines the stream.
        is_placeholder: repeat one short block, which costs a copy instead of a draw, because the
            values will be overwritten. (Leaving the memory as it is would not work: a truncated
            normal redraws what lies outside of its range, and would never end.)
    """

    def __init__(self, seed: int, *, is_placeholder: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._bits = PortableBits(seed)
        self._is_placeholder = is_placeholder

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise the first draw imports torch._dynamo, which takes seconds and is not needed here.
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.normal_.default and args[0].device.type == "cpu":
            mean, std = _two_arguments(args, kwargs, ("mean", "std"))
            return self._fill(args[0], mean, std * _WIDTH_PER_STD)
        if func is torch.ops.aten.uniform_.default and args[0].device.type == "cpu":
            low, high = _two_arguments(args, kwargs, ("from", "to"))
            return self._fill(args[0], (low + high) / 2, high - low)
        return func(*args, **kwargs)

    def _fill(self, tensor: Tensor, mean: float, width: float) -> Tensor:
        if not (self._is_placeholder and tensor.numel() > _CHUNK and tensor.is_contiguous()):
            return self._bits.fill(tensor, mean, width)
        with torch.no_grad():
            flat = tensor.detach().view(-1)
            block = self._bits.fill(flat[:_CHUNK], mean, width)
            for start in range(_CHUNK, flat.numel(), _CHUNK):
                part = flat[start : start + _CHUNK]
                part.copy_(block[: part.numel()])
        return tensor


def _two_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, str]
) -> tuple[float, float]:
    given = dict(zip(names, args[1:], strict=False)) | kwargs
    return float(given.get(names[0], 0.0)), float(given.get(names[1], 1.0))
