"""Operators of mixed types, for an exporter that does not convert their arguments itself.

PyTorch calculates ``1.0 - mask`` of whole numbers in floats. ``torch.onnx`` has a pass for that,
which fails for these functions; they get arguments of the type that PyTorch calculates in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class PromotedTypes(TorchFunctionMode):
    """While active, these functions get arguments of one type; what is computed is the same."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        promoted = _PROMOTED.get(func)
        return (promoted or func)(*args, **(kwargs or {}))


def _subtract_from(input: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """``other - alpha input``; booleans are left to PyTorch, which refuses them."""
    if input.dtype != torch.bool:
        input = input.to(torch.result_type(input, other))
    return torch.rsub(input, other, alpha=alpha)


def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    dtype = reduce(torch.promote_types, [tensor.dtype for tensor in tensors])
    return torch.stack([tensor.to(dtype) for tensor in tensors], dim)


def _over(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Softmax of another type: the conversion is made first, as PyTorch does."""

    def converted(
        input: Tensor,
        dim: int | None = None,
        _stacklevel: int = 3,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        input = input if dtype is None else input.to(dtype)
        return function(input, dim, _stacklevel=_stacklevel)

    return converted


def _over_dim(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def converted(input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
        return function(input if dtype is None else input.to(dtype), dim)

    return converted


_PROMOTED: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.rsub: _subtract_from,
    Tensor.__rsub__: _subtract_from,
    torch.stack: _stack,
    F.softmax: _over(F.softmax),
    F.log_softmax: _over(F.log_softmax),
    **dict.fromkeys((torch.softmax, Tensor.softmax), _over_dim(torch.softmax)),
    **dict.fromkeys((torch.log_softmax, Tensor.log_softmax), _over_dim(torch.log_softmax)),
}
