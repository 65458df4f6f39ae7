"""Batch normalization over the batches of all processes, on any device.

torch's ``SyncBatchNorm`` runs on GPUs only; this one runs wherever ``all_reduce`` does,
including gloo on the CPU.

N   samples of this process          C   channels          *   any further axes
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Synchronized(_BatchNorm):
    """Uses mean and variance over all processes in training; see :func:`synchronize_batch_norm`."""

    #: False while this process computes alone.
    is_shared = True

    def forward(self, x_NCs: Tensor) -> Tensor:
        if not (self.training and self.is_shared and dist.is_initialized()):
            return super().forward(x_NCs)
        axes = [axis for axis in range(x_NCs.dim()) if axis != 1]
        shape = [1, -1] + [1] * (x_NCs.dim() - 2)
        # 16-bit floats are too coarse for the count and the squares.
        wide_NCs = x_NCs.float() if x_NCs.dtype in (torch.float16, torch.bfloat16) else x_NCs
        num_own = x_NCs.numel() // x_NCs.shape[1]
        count = wide_NCs.new_full((1,), num_own)
        total_C1 = _sum_over_processes(torch.cat([wide_NCs.sum(axes), count]))
        num_values = total_C1[-1].detach()
        if (
            num_own < 2 and num_values < 2
        ):  # in this order: reading a number from the GPU waits for it
            raise ValueError("Expected more than 1 value per channel when training")
        mean_C = total_C1[:-1] / num_values
        centred_NCs = wide_NCs - mean_C.view(shape)
        # Two passes: the mean of squares minus the squared mean would lose its digits.
        variance_C = _sum_over_processes((centred_NCs * centred_NCs).sum(axes)) / num_values
        if self.track_running_stats:
            self._update_running_statistics(mean_C.detach(), variance_C.detach(), num_values)
        y_NCs = centred_NCs * torch.rsqrt(variance_C + self.eps).view(shape)
        if self.affine:
            y_NCs = y_NCs * self.weight.view(shape) + self.bias.view(shape)
        return y_NCs.to(x_NCs.dtype)

    @torch.no_grad()
    def _update_running_statistics(
        self, mean_C: Tensor, variance_C: Tensor, num_values: Tensor
    ) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        weight = self.momentum
        if weight is None:  # a plain average over all batches
            weight = 1.0 / float(self.num_batches_tracked)
        unbiased_C = variance_C * (num_values / (num_values - 1))
        self.running_mean.lerp_(mean_C, weight)
        self.running_var.lerp_(unbiased_C, weight)


class _SumOverProcesses(torch.autograd.Function):
    """A sum over processes; each loss depends on all values, so gradients are summed as well."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(values: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(values)  # type: ignore[no-untyped-call]
    return total


@contextmanager
def without_synchronization(module: nn.Module) -> Iterator[None]:
    """Normalize by this process's batch alone for a while, without the other processes."""
    layers = [part for part in module.modules() if isinstance(part, _Synchronized)]
    for layer in layers:
        layer.is_shared = False
    try:
        yield
    finally:
        for layer in layers:
            layer.is_shared = True


def synchronize_batch_norm(module: nn.Module) -> int:
    """Compute batch statistics over all processes in every batch normalization, in place.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, mean and variance over N, * and all
    processes. Parameters, buffers and their names stay, and evaluation is unchanged.

    **Source**: Ioffe and Szegedy 2015, algorithm 1; Peng et al. 2017, "MegDet", section 3.2.

    Returns:
        The number of batch normalizations.
    """
    layers = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    for layer in layers:
        kind = type(layer)
        layer.__class__ = type(f"Synchronized{kind.__name__}", (_Synchronized, kind), {})
    return len(layers)
