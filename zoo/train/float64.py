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

#: Weights of a linear layer widened at a time: 2 MiB in float64 stay in the second-level cache.
_MAX_WIDENED = 2**18


class Float64Arithmetic(TorchFunctionMode):
    """While active, an operation with one float64 operand takes its float32 ones as float64.

    Feed a network a float64 tensor, and its float32 weights are widened (exactly) as each
    operation meets them: the extra memory is about that of one layer's weights, and the
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
        if not any(_is_float64(a) for a in (*args, *kwargs.values())):
            return func(*args, **kwargs)
        if func is F.linear:
            return _linear(*args, **kwargs)
        if func is F.conv2d or func is torch.conv2d:
            return _conv2d(*args, **kwargs)
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


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W^T + b``, a block of rows of W at a time: VGG16's first would take 822 MB."""
    x_NI = _widen(input)
    num_rows = max(1, _MAX_WIDENED // weight.shape[1])
    if num_rows >= weight.shape[0]:
        return F.linear(x_NI, _widen(weight), _widen(bias))
    y_NO: Tensor = x_NI.new_empty(*x_NI.shape[:-1], weight.shape[0])
    # One buffer for all blocks: the allocator would not give the same memory twice.
    buffer_OI = x_NI.new_empty(num_rows, weight.shape[1])
    for start in range(0, weight.shape[0], num_rows):
        rows_OI = weight[start : start + num_rows]
        wide_OI = buffer_OI[: rows_OI.shape[0]].copy_(rows_OI)
        y_NO[..., start : start + num_rows] = F.linear(x_NI, wide_OI)
    if bias is not None:
        y_NO += _widen(bias)
    return y_NO


def _conv2d(input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A convolution of one sample at a time: torch unfolds its input to kernel-size copies."""
    widened = {name: _widen(value) for name, value in kwargs.items()}
    weight_OIHW, rest = _widen(weight), [_widen(value) for value in args]
    samples_1CHW = _widen(input).split(1)
    return torch.cat(
        [F.conv2d(x_1CHW, weight_OIHW, *rest, **widened) for x_1CHW in samples_1CHW]
    )
