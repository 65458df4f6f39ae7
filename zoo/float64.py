"""Run a float32 network in float64 without a second copy of its weights.

Shape legend: N batch, C channels, H and W height and width, I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

#: Number of weights of a linear layer widened at once: 2 MiB in float64 fit the second-level cache.
_MAX_WIDENED = 2**18


class Float64Arithmetic(TorchFunctionMode):
    """While active, operations with a float64 operand widen their float32 operands to float64.

    Given a float64 tensor, a network's float32 weights are widened (exactly) in each
    operation that uses them: the extra memory is about that of one layer's weights, and the
    network itself is never changed.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "__get__":
            # Layers that compare dtypes (an LSTM) see the one that is computed in.
            found = func(*args, **kwargs)
            return torch.float64 if found is torch.float32 else found
        if not any(_is_float64(a) for a in (*args, *kwargs.values())):
            return func(*args, **kwargs)
        if func is F.linear:
            return linear_in_float64(*args, **kwargs)
        if func is F.conv2d or func is torch.conv2d:
            return conv2d_in_float64(*args, **kwargs)
        return func(*(_widen(a) for a in args), **{k: _widen(v) for k, v in kwargs.items()})


def _is_float64(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_is_float64(v) for v in value)
    return isinstance(value, Tensor) and value.dtype == torch.float64


def _widen(value: Any) -> Any:
    if type(value) in (list, tuple):
        return type(value)(_widen(v) for v in value)
    is_narrow = isinstance(value, Tensor) and value.dtype == torch.float32
    return value.double() if is_narrow else value


def linear_in_float64(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W^T + b``, by blocks of rows of W, since VGG16's first layer would take 822 MB."""
    x_NI = _widen(input)
    num_rows = max(1, _MAX_WIDENED // weight.shape[1])
    if num_rows >= weight.shape[0]:
        return F.linear(x_NI, _widen(weight), _widen(bias))
    y_NO: Tensor = x_NI.new_empty(*x_NI.shape[:-1], weight.shape[0])
    # One buffer for all blocks: the allocator would not reuse the same memory.
    buffer_OI = x_NI.new_empty(num_rows, weight.shape[1])
    for start in range(0, weight.shape[0], num_rows):
        rows_OI = weight[start : start + num_rows]
        wide_OI = buffer_OI[: rows_OI.shape[0]].copy_(rows_OI)
        y_NO[..., start : start + num_rows] = F.linear(x_NI, wide_OI)
    if bias is not None:
        y_NO += _widen(bias)
    return y_NO


def conv2d_in_float64(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """A convolution of one sample at a time, since torch unfolds its input to kernel-size copies.

    Depthwise ones are sums over the positions in the kernel instead: PyTorch has no float64
    kernel for them, and takes 30 times as long channel by channel.
    """
    x_NCHW, weight_OIHW, wide_bias = _widen(input), _widen(weight), _widen(bias)
    if x_NCHW.dim() == 4 and groups == x_NCHW.shape[1] > 1 and not isinstance(padding, str):
        return _depthwise(
            x_NCHW, weight_OIHW, wide_bias, _pair(stride), _pair(padding), _pair(dilation)
        )
    rest: tuple[Any, ...] = (stride, padding, dilation, groups)
    return torch.cat([F.conv2d(x, weight_OIHW, wide_bias, *rest) for x in x_NCHW.split(1)])


def _depthwise(
    x_NCHW: Tensor,
    weight_O1HW: Tensor,
    bias_O: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    x_NCHW = F.pad(x_NCHW, (padding[1], padding[1], padding[0], padding[0]))
    x_NOHW = x_NCHW.repeat_interleave(weight_O1HW.shape[0] // x_NCHW.shape[1], dim=1)
    kernel = weight_O1HW.shape[2:]
    # n_out - 1 steps of the stride.
    reach = [
        (x_NOHW.shape[2 + axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis]
        for axis in (0, 1)
    ]
    y_NOHW = x_NOHW.new_zeros(*x_NOHW.shape[:2], reach[0] + 1, reach[1] + 1)
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            top, left = row * dilation[0], column * dilation[1]
            shifted_NOHW = x_NOHW[
                :,
                :,
                top : top + reach[0] * stride[0] + 1 : stride[0],
                left : left + reach[1] * stride[1] + 1 : stride[1],
            ]
            y_NOHW.addcmul_(shifted_NOHW, weight_O1HW[:, 0, row, column].reshape(-1, 1, 1))
    return y_NOHW if bias_O is None else y_NOHW + bias_O.reshape(-1, 1, 1)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
