"""Pooling with ``ceil_mode`` over an image of open size.

PyTorch drops a last window that would start beyond the image, which it asks of each size as it
comes; ``torch.export`` cannot keep such a question open. Written down as arithmetic it stays open:

    n_out = min(ceil((n + 2p - d(k - 1) - 1) / s) + 1, (n + p - 1) // s + 1)

where the second term matters only if p + s > d(k - 1) + 1.

Source:
    ATen/native/Pool.h, pooling_output_shape_pad_lr.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlzoo.export.lowering.onnx_operators import op
from dlzoo.export.lowering.operators.average_pool import average_pool
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator

#: PyTorch's own, by the number of axes. Typed as Any: their stubs have an overload for every
#: combination.
_MAXIMUM: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _output_shape(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[Any]:
    sizes: list[Any] = list(x.shape[:2])
    for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True):
        reach = d * (k - 1) + 1
        n_out = -((reach - n - 2 * p) // s) + 1
        if p + s > reach:
            n_out = torch.sym_min(n_out, (n + p - 1) // s + 1)  # type: ignore[no-untyped-call]
        sizes.append(n_out)
    return sizes


def _for_each_axis(value: Any, num_axes: int) -> list[int]:
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * num_axes if len(numbers) == 1 else numbers


def _is_open(x: Tensor, num_axes: int) -> bool:
    """Whether a size is open along the pooled axes of a batch."""
    return x.dim() == num_axes + 2 and any(not isinstance(size, int) for size in x.shape[2:])


def _add_maximum(num_axes: int) -> None:
    own = _MAXIMUM[num_axes]
    name = f"ceil_max_pool{num_axes}d"

    @torch.library.custom_op(f"dlzoo::{name}", mutates_args=())
    def pool(
        x: Tensor,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> Tensor:
        pooled: Tensor = own(
            x, list(kernel), list(stride), list(padding), list(dilation), ceil_mode=True
        )
        return pooled

    @pool.register_fake
    def _(
        x: Tensor,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> Tensor:
        return x.new_empty(_output_shape(x, kernel, stride, padding, dilation))

    def traced(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        if not ceil_mode or return_indices or not _is_open(input, num_axes):
            return own(
                input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
            )
        kernel = _for_each_axis(kernel_size, num_axes)
        return pool(
            input,
            kernel,
            _for_each_axis(stride or kernel, num_axes),
            _for_each_axis(padding, num_axes),
            _for_each_axis(dilation, num_axes),
        )

    def translate(
        x: Any,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> Any:
        return op.MaxPool(
            x,
            ceil_mode=1,
            kernel_shape=list(kernel),
            strides=list(stride),
            pads=[*padding, *padding],
            dilations=list(dilation),
        )[0]

    _add_operator(name, own, traced, "MaxPool", translate)


def _add_average(num_axes: int) -> None:
    own = _AVERAGE[num_axes]
    name = f"ceil_avg_pool{num_axes}d"

    def call(input: Tensor, *arguments: Any, divisor_override: int | None) -> Tensor:
        # In one dimension there is no such argument.
        divisor = () if divisor_override is None else (divisor_override,)
        pooled: Tensor = own(input, *arguments, *divisor)
        return pooled

    @torch.library.custom_op(f"dlzoo::{name}", mutates_args=())
    def pool(
        x: Tensor,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> Tensor:
        return call(
            x,
            list(kernel),
            list(stride),
            list(padding),
            True,
            count_include_pad,
            divisor_override=divisor_override,
        )

    @pool.register_fake
    def _(
        x: Tensor,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> Tensor:
        return x.new_empty(_output_shape(x, kernel, stride, padding, [1] * num_axes))

    def traced(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor:
        if not ceil_mode or not _is_open(input, num_axes):
            return call(
                input,
                kernel_size,
                stride,
                padding,
                ceil_mode,
                count_include_pad,
                divisor_override=divisor_override,
            )
        kernel = _for_each_axis(kernel_size, num_axes)
        pooled: Tensor = pool(
            input,
            kernel,
            _for_each_axis(stride or kernel, num_axes),
            _for_each_axis(padding, num_axes),
            count_include_pad,
            divisor_override,
        )
        return pooled

    def translate(
        x: Any,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        count_include_pad: bool,
        divisor_override: int | None = None,
    ) -> Any:
        return average_pool(
            x,
            kernel,
            stride,
            padding,
            True,
            count_include_pad,
            divisor_override,
            num_axes=num_axes,
        )

    _add_operator(name, own, traced, "AveragePool", translate)


def _add_operator(
    name: str,
    function: Callable[..., Any],
    replacement: Callable[..., Any],
    onnx: str,
    translate: Callable[..., Any],
) -> None:
    add_operator(
        Operator(
            name=name,
            torch_operators=(f"dlzoo.{name}.default",),
            formula="pooling with ceil_mode where a size is open",
            torch_function=function,
            replacement=replacement,
        ),
        Lowering(operator=name, spelling="native", onnx=(onnx,), translate=translate),
    )


for _num_axes in (1, 2, 3):
    _add_maximum(_num_axes)
    _add_average(_num_axes)
