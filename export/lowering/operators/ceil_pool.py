"""Pooling with ``ceil_mode`` over an image of open size.

PyTorch drops a last window that would start beyond the image, which it asks of each size as it
comes; ``torch.export`` cannot keep such a question open. Written down as arithmetic it stays open:

    n_out = min(ceil((n + 2p - d(k - 1) - 1) / s) + 1, (n + p - 1) // s + 1)

where the second term matters only if p + s > d(k - 1) + 1.

Source:
    ATen/native/Pool.h, pooling_output_shape_pad_lr.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlzoo.export.lowering.onnx_operators import op
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator

#: Typed as Any: their stubs have an overload for every combination.
_max_pool2d: Any = F.max_pool2d
_avg_pool2d: Any = F.avg_pool2d


@torch.library.custom_op("dlzoo::ceil_max_pool2d", mutates_args=())
def _maximum(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    pooled: Tensor = _max_pool2d(
        x, list(kernel), list(stride), list(padding), list(dilation), ceil_mode=True
    )
    return pooled


@torch.library.custom_op("dlzoo::ceil_avg_pool2d", mutates_args=())
def _average(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    count_include_pad: bool,
) -> Tensor:
    pooled: Tensor = _avg_pool2d(
        x, list(kernel), list(stride), list(padding), True, count_include_pad
    )
    return pooled


@_maximum.register_fake
def _(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    return x.new_empty(_output_shape(x, kernel, stride, padding, dilation))


@_average.register_fake
def _(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    count_include_pad: bool,
) -> Tensor:
    return x.new_empty(_output_shape(x, kernel, stride, padding, (1, 1)))


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


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _is_open(x: Tensor) -> bool:
    """Whether a height or width is open, in an image with a batch."""
    return x.dim() == 4 and any(not isinstance(size, int) for size in x.shape[2:])


def _traced_maximum(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if not ceil_mode or return_indices or not _is_open(input):
        return _max_pool2d(
            input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
        )
    kernel = _pair(kernel_size)
    return torch.ops.dlzoo.ceil_max_pool2d.default(
        input, kernel, _pair(stride or kernel), _pair(padding), _pair(dilation)
    )


def _traced_average(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    traced: Tensor
    if not ceil_mode or divisor_override is not None or not _is_open(input):
        traced = _avg_pool2d(
            input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        )
        return traced
    kernel = _pair(kernel_size)
    traced = torch.ops.dlzoo.ceil_avg_pool2d.default(
        input, kernel, _pair(stride or kernel), _pair(padding), count_include_pad
    )
    return traced


def _max_pool(
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


def _average_pool(
    x: Any,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    count_include_pad: bool,
) -> Any:
    return op.AveragePool(
        x,
        ceil_mode=1,
        kernel_shape=list(kernel),
        strides=list(stride),
        pads=[*padding, *padding],
        count_include_pad=int(count_include_pad),
    )


for _name, _function, _replacement, _onnx, _translate in (
    ("ceil_max_pool2d", _max_pool2d, _traced_maximum, "MaxPool", _max_pool),
    ("ceil_avg_pool2d", _avg_pool2d, _traced_average, "AveragePool", _average_pool),
):
    add_operator(
        Operator(
            name=_name,
            torch_operators=(f"dlzoo.{_name}.default",),
            formula="pooling with ceil_mode where a size is open",
            torch_function=_function,
            replacement=_replacement,
        ),
        Lowering(operator=_name, spelling="native", onnx=(_onnx,), translate=_translate),
    )
