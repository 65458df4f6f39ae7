"""Finding the first layer or weight with NaN or Inf, once a loss is not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree


def first_bad_weight(network: nn.Module) -> str | None:
    """The name of the first parameter or buffer with NaN or Inf; None if all are finite."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


def describe_first_bad_value(
    network: nn.Module, run: Callable[[], Any], images: Tensor
) -> str:
    """Name the source of the first NaN or Inf: the images, a weight, or the output of a layer.

    Args:
        network: with the weights and in the mode in which the loss was computed.
        run: computes the loss again on the same batch.
        images: the images of that batch.
    """
    if not bool(torch.isfinite(images).all()):
        return "the images have NaN or Inf before the first layer"
    weight = first_bad_weight(network)
    if weight is not None:
        return f"the weights {weight} are NaN or Inf since an earlier step"
    found: list[str] = []

    def watch(name: str, part: nn.Module) -> Callable[..., None]:
        def after(_module: nn.Module, _arguments: Any, output: Any) -> None:
            leaves = [leaf for leaf in _pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
            if not found and not all(bool(torch.isfinite(leaf).all()) for leaf in leaves):
                kind = type(part).__name__
                called = f"{name} ({kind})" if name else f"the network itself ({kind})"
                found.append(f"the first layer with NaN or Inf is {called}")

        return after

    # Modules end before the modules that contain them, so the first one found is the innermost.
    handles = [
        part.register_forward_hook(watch(name, part)) for name, part in network.named_modules()
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return (
        found[0] if found else "every layer's output is finite, so only the loss itself is not"
    )
