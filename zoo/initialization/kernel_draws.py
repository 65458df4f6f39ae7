"""Random kernels: uniform, normal, truncated normal and orthogonal.

Each part of each weight has its own stream.
"""

from __future__ import annotations

import math
import zlib
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from dlzoo.zoo.initialization.draws import PortableBits
from dlzoo.zoo.initialization.kernels import Kernel

Distribution = Literal["uniform", "normal", "truncated-normal"]
#: A truncated normal is redrawn beyond this many standard deviations.
CUT = 2.0


def fill(kernel: Kernel, distribution: Distribution, std: float, seed: int) -> None:
    """Draw a kernel with mean 0.

    ``std`` is that of the distribution; for a truncated one, before truncation.
    """
    shape = kernel.values.shape
    if distribution == "uniform":
        kernel.values.copy_(PortableBits(*_stream(kernel, seed)).uniform(shape, std=std))
        return
    values = _normal(kernel, seed, cut=CUT if distribution == "truncated-normal" else None)
    kernel.values.copy_(torch.from_numpy(values * std).reshape(shape))


def _stream(kernel: Kernel, seed: int) -> tuple[int, int, int]:
    return seed, zlib.crc32(kernel.parameter.encode()), kernel.part


def _normal(kernel: Kernel, seed: int, cut: float | None = None) -> npt.NDArray[np.float64]:
    sequence = np.random.SeedSequence(_stream(kernel, seed))
    generator = np.random.Generator(np.random.PCG64(sequence))
    values = generator.standard_normal(kernel.values.numel())
    if cut is not None:
        while len(outside := np.flatnonzero(np.abs(values) > cut)):
            values[outside] = generator.standard_normal(len(outside))
    return values


def fill_orthogonal(kernel: Kernel, gain: float, seed: int) -> None:
    """Make rows, or columns if there are fewer, orthogonal and of length ``gain``."""
    drawn = torch.from_numpy(_normal(kernel, seed))
    if kernel.values.dim() < 2:
        # One coefficient for all inputs of an output: a row of equal numbers, of this length.
        values = drawn.sign() * (gain / math.sqrt(kernel.fan_in))
        kernel.values.copy_(values.reshape(kernel.values.shape))
        return
    matrix_OI = drawn.reshape(kernel.values.shape[0], -1)
    is_wide = matrix_OI.shape[0] < matrix_OI.shape[1]
    # The division of work among threads affects the last bits.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        q, r = torch.linalg.qr(matrix_OI.mT if is_wide else matrix_OI)
    finally:
        torch.set_num_threads(num_threads)
    # Otherwise the signs would not be drawn uniformly. Source: Mezzadri 2007, "How to generate
    # random matrices from the classical compact groups", section 5.
    q = q * r.diagonal().sign()
    kernel.values.copy_((gain * (q.mT if is_wide else q)).reshape(kernel.values.shape))
