"""Attention over tensors of any rank, for an exporter that has it for four dimensions alone.

Shape legend: N all axes before the heads, H heads, L queries, S keys, E features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

#: Typed as Any: torch has no stub for it.
_attention: Any = F.scaled_dot_product_attention


class AttentionInFourDimensions(TorchFunctionMode):
    """While active, attention over other ranks is that over ``[N, H, L, E]``, and shaped back.

    The axes before the last two are a batch, whatever their number: windows of an image are one
    more (Twins), and without heads there is one less. What is computed is the same.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not _attention:
            return func(*args, **kwargs)
        return attention_of_any_rank(*args, **kwargs)


def attention_of_any_rank(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """``softmax(q k^T / sqrt(E) + mask) v`` by the function for four dimensions.

    Args:
        query: ``[..., L, E]``.
        key: ``[..., S, E]``.
        value: ``[..., S, E]``.
        attn_mask: broadcast to ``[..., L, S]``.
        args: as for the function itself.
        kwargs: the same.
    """
    rank = query.dim()
    is_plain = query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    # Broadcast batches, and fewer heads of keys than of queries, are left to the function.
    if rank == 4 or rank < 2 or not is_plain:
        result: Tensor = _attention(query, key, value, attn_mask, *args, **kwargs)
        return result
    if attn_mask is not None and attn_mask.dim() > 2:
        attn_mask = attn_mask.expand(*query.shape[:-2], query.shape[-2], key.shape[-2])
        attn_mask = _in_four_dimensions(attn_mask)
    q_NHLE, k_NHSE, v_NHSE = (_in_four_dimensions(x) for x in (query, key, value))
    y_NHLE: Tensor = _attention(q_NHLE, k_NHSE, v_NHSE, attn_mask, *args, **kwargs)
    return y_NHLE.reshape(*query.shape[:-1], value.shape[-1])


def _in_four_dimensions(x: Tensor) -> Tensor:
    if x.dim() > 4:
        return x.flatten(0, x.dim() - 4)
    while x.dim() < 4:
        x = x.unsqueeze(-3)
    return x
