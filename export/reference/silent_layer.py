"""The layer of a network in which float32's own error grows beyond its signal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from dlzoo.export.reference.random_rounding import random_rounding
from dlzoo.export.reference.reference import as_array, root_mean_square, run_in_float32
from dlzoo.runtime.proof.limits import VACUOUS_SHARE

Array = npt.NDArray[Any]


def first_silent_layer(
    module: nn.Module, inputs: Mapping[str, Array], *, output_names: Sequence[str]
) -> str | None:
    """Name the first module whose output float32's own error covers, in the order of the calls.

    Two runs in float32 with their roundings moved at random, m_1 and m_2, differ by twice the
    variance of one: ``RMS(m_1 - m_2) / √2 > VACUOUS_SHARE · RMS(m_1)``.

    Args:
        module: in eval mode; it comes back as it was.
        inputs: by name, on which an output is covered by the error of float32.
        output_names: one for each tensor that the network gives.

    Returns:
        Its path and class, as ``'blocks.3' (Softmax)``; None where no output of a module is.
    """
    tensors = {key: torch.from_numpy(value) for key, value in inputs.items()}
    first, second = (
        _values_of_layers(module, tensors, output_names, seed) for seed in range(2)
    )
    for (name, m1), (_, m2) in zip(first, second, strict=False):
        finite = np.isfinite(m1) & np.isfinite(m2) if m1.shape == m2.shape else None
        if finite is None or not finite.any():
            continue
        error = root_mean_square(m1[finite] - m2[finite]) / np.sqrt(2)
        if error > VACUOUS_SHARE * root_mean_square(m1[finite]):
            return name
    return None


def _values_of_layers(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str], seed: int
) -> list[tuple[str, npt.NDArray[np.float64]]]:
    """What every module gave, in the order in which they were done."""
    found: list[tuple[str, npt.NDArray[np.float64]]] = []

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(part: nn.Module, args: Any, result: Any) -> None:
            for value in _pytree.tree_leaves(result):
                if isinstance(value, Tensor) and value.is_floating_point():
                    found.append((name, as_array(value).astype(np.float64)))

        return hook

    with ExitStack() as stack:
        for path, part in module.named_modules():
            if isinstance(part, torch.jit.ScriptModule):
                continue
            named = (
                f"{path!r} ({type(part).__name__})"
                if path
                else f"the forward of {type(part).__name__}"
            )
            stack.callback(part.register_forward_hook(keep(named)).remove)
        with random_rounding(module, seed):
            run_in_float32(module, inputs, output_names)
    return found
