"""A mean over several axes, one axis after another: as exact as PyTorch's tree of additions.

ONNX Runtime adds the numbers of one ``ReduceMean`` in a few long rows. Where all of them are nearly
equal, as behind an image of one color, every addition rounds the same way: over 300 x 300 equal
numbers its mean has 300 times PyTorch's error, over N(0, 1) ten times. Steps are shorter rows, and
from some 400 numbers on cost nothing (ONNX Runtime 1.32 on a CPU; the rows of ``mean`` in
``measured_costs.json``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlzoo.export.lowering.onnx_operators import constant, ints, op

#: Numbers to a mean up to which one step is as exact as several. Measured on equal numbers: 2.9 x
#: PyTorch's error for 16 x 16, 3.1 for 20 x 20, 6 for 28 x 28, 20 for 56 x 56.
MAX_IN_ONE_STEP = 256
#: Where sizes are open: behind so many channels images have become small, and steps would cost a third
#: of EfficientNet-B0's time.
_MANY_CHANNELS = 256
#: An axis longer than this is cut into rows: 300 into 15 of 20.
_MAX_AXIS = 128


def axes_of(x: Any, dim: int | Sequence[int] | None) -> list[int]:
    """The axes that a torch operator's ``dim`` means, from 0 up; all where it is none."""
    rank = len(x.shape)
    dims = [dim] if isinstance(dim, int) else list(dim or range(rank))
    return sorted(axis % rank for axis in dims)


def why_inexact(x: Any, axes: Sequence[int], limit: int = MAX_IN_ONE_STEP) -> str:
    """Why a mean over axes is less exact in one step; empty where it is not.

    One axis alone stays: ONNX Runtime knows layer normalization by such a mean.
    """
    sizes = [x.shape[axis] for axis in axes]
    if len(axes) < 2:
        return ""
    if not all(isinstance(size, int) for size in sizes):
        kept = [size for axis, size in enumerate(x.shape) if axis not in axes]
        is_deep = math.prod(size for size in kept if isinstance(size, int)) > _MANY_CHANNELS
        return "" if is_deep else "is less exact over many numbers, and sizes are open"
    return "is less exact over so many numbers" if math.prod(sizes) > limit else ""


def mean_in_one_step(
    x: Any, axes: Sequence[int], *, keepdims: bool = True, squared: bool = False
) -> Any:
    """What :func:`mean_in_steps` gives, as one node."""
    return op.ReduceMean(op.Mul(x, x) if squared else x, ints(*axes), keepdims=int(keepdims))


def mean_in_steps(
    x: Any, axes: Sequence[int], *, keepdims: bool = True, squared: bool = False
) -> Any:
    """The mean over ``axes``, which count from 0 and ascend; of the squares, if asked for."""
    sizes = list(x.shape)
    step = _mean_of_squares if squared else _mean
    y = x
    for axis in axes:
        size, outer = sizes[axis], _divisor(sizes[axis])
        if outer > 1 and sum(not isinstance(size, int) for size in sizes[axis + 1 :]) <= 1:
            # 0 is the size that is there.
            ahead = [size if isinstance(size, int) else 0 for size in sizes[:axis]]
            behind = [size if isinstance(size, int) else -1 for size in sizes[axis + 1 :]]
            y = op.Reshape(y, ints(*ahead, outer, size // outer, *behind))
            y.dtype = x.dtype
            y, step, size = step(y, axis, outer, keepdims=0), _mean, size // outer
        y, step = step(y, axis, size, keepdims=1), _mean
        sizes[axis] = 1
    return y if keepdims else op.Squeeze(y, ints(*axes))


def _mean(x: Any, axis: int, size: Any, keepdims: int) -> Any:
    return op.ReduceMean(x, ints(axis), keepdims=keepdims)


def _mean_of_squares(x: Any, axis: int, size: Any, keepdims: int) -> Any:
    """Without the squares in memory, where the size is known."""
    if not isinstance(size, int):
        return op.ReduceMean(op.Mul(x, x), ints(axis), keepdims=keepdims)
    total = op.ReduceSumSquare(x, ints(axis), keepdims=keepdims)
    return op.Div(total, constant(np.array(size, x.dtype.numpy())))


def _divisor(size: Any) -> int:
    """How many rows a long axis is cut into: the divisor nearest below its root, 1 for none."""
    if not isinstance(size, int) or size <= _MAX_AXIS:
        return 1
    return next(d for d in range(math.isqrt(size), 0, -1) if size % d == 0)
