"""Average pooling, also with a divisor of one's own: ``sum(x over a window) / d``.

ONNX divides by the number of elements. Where another divisor is given, the image is padded with
zeros first, so that every window has all its elements, and the mean is multiplied: ``mean k / d``.

Source:
    ATen/native/AveragePool2d.cpp and Pool.h, pooling_output_shape_pad_lr.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.export.lowering.onnx_operators import constant, ints, op
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator


def average_pool(
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    num_axes: int,
) -> Any:
    """``avg_pool1d``, ``2d`` and ``3d`` of PyTorch, with a batch or without.

    Args:
        x: [N, C, ...] or [C, ...].
        kernel_size: of each axis, or one for all; so are the others.
        stride: the kernel's size if empty.
        padding: zeros on both sides.
        ceil_mode: whether a last window may reach beyond the padded image.
        count_include_pad: whether padding counts as elements.
        divisor_override: what a window's sum is divided by, in place of its number of elements.
        num_axes: how many axes are pooled.
    """
    kernel = _for_each_axis(kernel_size, num_axes)
    strides = _for_each_axis(stride or kernel, num_axes)
    pads = _for_each_axis(padding, num_axes)
    is_alone = len(x.shape) == num_axes + 1
    sizes, dtype = x.shape[-num_axes:], x.dtype.numpy()
    if is_alone:
        x = op.Unsqueeze(x, ints(0))
    if divisor_override is None:
        pooled = op.AveragePool(
            x,
            ceil_mode=int(ceil_mode),
            count_include_pad=int(count_include_pad),
            kernel_shape=kernel,
            pads=[*pads, *pads],
            strides=strides,
        )
    else:
        factor = np.array(prod(kernel) / divisor_override, dtype)
        pooled = _weighted_mean(x, sizes, kernel, strides, pads, ceil_mode, factor)
    return op.Squeeze(pooled, ints(0)) if is_alone else pooled


def _for_each_axis(numbers: Sequence[int], num_axes: int) -> list[int]:
    return list(numbers) * num_axes if len(numbers) == 1 else list(numbers)


def _weighted_mean(
    x: Any,
    sizes: Sequence[Any],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    ceil_mode: bool,
    factor: npt.NDArray[Any],
) -> Any:
    # Zeros up to a whole stride more make room for the last window of ceil_mode.
    ends = [p + s - 1 if ceil_mode else p for p, s in zip(pads, strides, strict=True)]
    padded = x
    if any((*pads, *ends)):
        padded = op.Pad(x, ints(0, 0, *pads, 0, 0, *ends))
    mean = op.AveragePool(padded, kernel_shape=list(kernel), strides=list(strides))
    divided = op.Mul(mean, constant(factor))
    if not ceil_mode:
        return divided
    # A window that would start beyond the image and the padding before it is none.
    for axis, (size, k, s, p) in enumerate(zip(sizes, kernel, strides, pads, strict=True), 2):
        if p + s > k:
            divided = op.Slice(
                divided, ints(0), _most_windows(x, axis, size, s, p), ints(axis)
            )
    return divided


def _most_windows(x: Any, axis: int, size: Any, stride: int, padding: int) -> Any:
    """``(n + p - 1) // s + 1``, as a row of one number."""
    if isinstance(size, int):
        return ints((size + padding - 1) // stride + 1)
    length = op.Gather(op.Shape(x), ints(axis), axis=0)
    return op.Add(op.Div(op.Add(length, ints(padding - 1)), ints(stride)), ints(1))


def _average_pool2d(
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    return average_pool(
        x,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
        num_axes=2,
    )


def _average_pool3d(
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    return average_pool(
        x,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
        num_axes=3,
    )


for _name, _translate in (("avg_pool2d", _average_pool2d), ("avg_pool3d", _average_pool3d)):
    add_operator(
        Operator(
            name=_name,
            torch_operators=(f"aten.{_name}.default",),
            formula="mean over windows",
        ),
        Lowering(
            operator=_name,
            spelling="native",
            onnx=("AveragePool",),
            translate=_translate,
            note="ceil_mode too; divisor_override by a Mul behind it",
        ),
    )
