"""Scaling of weights layer by layer, so that each layer's outputs on real data have variance 1.

N   samples          T   tokens          E   width of a token
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlzoo.errors import ArgumentError
from dlzoo.zoo.float64 import Float64Arithmetic
from dlzoo.zoo.initialization.signal import AFFINE_LAYERS, rounded
from dlzoo.zoo.parameter_groups import NORM_LAYERS


def set_unit_variance(module: nn.Module, data: Tensor) -> None:
    """Scale every convolution and linear layer by the variance of its outputs on a batch.

    ``W <- W / sqrt(Var(y))``, y all outputs of the layer on the batch, after the layers before it
    are scaled: one pass through the network in float64, as in training but without dropout. The
    layer's bias must be constant, so that it does not affect the variance. Equal weights and data
    give equal bytes with any number of threads, because scales are rounded to 10 bits.

    Source:
        Mishkin & Matas 2016, "All you need is a good init", algorithm 1; because outputs are
        linear in weights, one division is enough.

    Args:
        module: a network on the CPU; its mode, buffers and torch's random state are not changed.
        data: [N, ...], at least two samples.

    Raises:
        ArgumentError: a layer's outputs are all equal, or NaN.
    """
    modes = {part: part.training for part in module.modules()}
    buffers = {buffer: buffer.clone() for buffer in module.buffers()}
    try:
        for part in modes:
            is_container = next(part.children(), None) is not None
            part.training = is_container or isinstance(part, NORM_LAYERS)
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            _scaling_hooks(module),
            Float64Arithmetic(),
        ):
            module(data.double())
    finally:
        for part, mode in modes.items():
            part.training = mode
        for buffer, value in buffers.items():
            buffer.copy_(value)


@contextmanager
def _scaling_hooks(module: nn.Module) -> Iterator[None]:
    names = {part: name for name, part in module.named_modules()}
    done: set[nn.Module] = set()

    def is_first(part: nn.Module) -> bool:
        was_done = part in done
        done.add(part)
        return not was_done

    def after_affine(part: nn.Module, args: Any, y: Tensor) -> Tensor:
        if not is_first(part):
            return y
        weight_name = next(
            name for kind, name in AFFINE_LAYERS.items() if isinstance(part, kind)
        )
        return _scale(part.get_parameter(weight_name), part.bias, y, names[part])  # type: ignore[arg-type]

    def before_attention(part: nn.MultiheadAttention, args: tuple[Tensor, ...]) -> None:
        if part.in_proj_weight is None or not is_first(part):
            return
        rows, biases = part.in_proj_weight.chunk(3), [None] * 3
        if part.in_proj_bias is not None:
            biases = part.in_proj_bias.chunk(3)  # type: ignore[assignment]
        # If called with keywords, some may be missing: they default to the query.
        given = [args[min(i, len(args) - 1)] for i in range(3)]
        for x_NTE, row, bias in zip(given, rows, biases, strict=True):
            _scale(row, bias, functional.linear(x_NTE, row, bias), names[part])

    def after_attention(part: nn.MultiheadAttention, args: Any, output: Any) -> Any:
        # It uses the weights of its last layer without calling it.
        if not is_first(part.out_proj):
            return output
        y, *others = output
        return (_scale(part.out_proj.weight, part.out_proj.bias, y, names[part]), *others)

    handles = []
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention):
            handles.append(part.register_forward_pre_hook(before_attention))
            handles.append(part.register_forward_hook(after_attention))
        elif isinstance(part, tuple(AFFINE_LAYERS)):
            handles.append(part.register_forward_hook(after_affine))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _scale(weight: Tensor, bias: Tensor | None, y: Tensor, name: str) -> Tensor:
    """Divide a weight by the deviation of the layer's outputs; return its outputs afterwards."""
    variance = float(y.var(correction=0))
    if not variance > 0:
        raise ArgumentError(
            f"Initialization lsuv: layer {name} has outputs of variance {variance:g} on the "
            "batch, expected more than 0; pass data that differ, or choose another scheme."
        )
    scale = float(rounded(np.array(1 / np.sqrt(variance))))
    weight.mul_(scale)
    # The bias is constant, so it can be subtracted anywhere.
    constant = 0.0 if bias is None else float(bias.flatten()[0])
    return (y - constant) * scale + constant
