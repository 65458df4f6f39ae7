"""A mean over several axes, one axis after another: as exact as PyTorch's tree of additions.

ONNX Runtime adds the numbers of one ``ReduceMean`` in a few long rows. Where all of them are equal, as
behind an image of one color, every addition rounds the same way. Steps are shorter rows.

Measured on ONNX Runtime 1.32, a CPU, one thread: rho2 of one step on images of one color (limit 3; on
N(0, 1), off zero and on nearly one color it is below 0.6 at all sizes), and the time of several steps
as a multiple of one:

============================== ===== ===== ===== ===== ===== ===== =====
size                           14²   24²   32²   40²   56²   112²  224²
============================== ===== ===== ===== ===== ===== ===== =====
mean                           0.8   1.3   1.8   2.2   2.5   5.1   14
mean in steps                        0.1   0.1   0.1   0.2   0.1   0.02
its time                             1.27  1.25  1.16  0.98  0.75  0.88
variance and mean, as a norm   0.8               -     2.2         11
x / sqrt(variance + 1e-5)      0.6               -     16          10293
============================== ===== ===== ===== ===== ===== ===== =====
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlzoo.export.lowering.onnx_operators import constant, ints, op

#: Numbers to a mean up to which one step is exact enough: rho2 and rhomax are 1.8 for 32 x 32, 2.2 for
#: 40 x 40.
MAX_IN_ONE_STEP = 1024
#: Numbers to a variance: by the error of a mean squared, an image of one color has one. rho2 of
#: x / sqrt(variance + 1e-5) is 0.6 for 14 x 14, 3.5 for 28 x 28.
MAX_IN_A_VARIANCE = 256
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
