"""The processes that train together, their devices and their arithmetic: Lightning Fabric's part."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from dlzoo.errors import ArgumentError

#: What torchrun tells each process.
_WORLD, _LOCAL_WORLD = "WORLD_SIZE", "LOCAL_WORLD_SIZE"


def make_fabric(*, device: str, precision: str) -> Fabric:
    """Join the processes that torchrun started, or be the only one.

    Args:
        device: ``auto`` (CUDA where there is a GPU), ``cpu`` or ``cuda``.
        precision: Lightning Fabric's name.

    Raises:
        ArgumentError: there is no such device, or it has no such arithmetic.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ArgumentError(f"--device got {device!r}, expected auto, cpu or cuda.")
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ArgumentError(
            "--device got 'cuda', and torch finds no GPU here. Leave it out, or install the torch "
            "build for your driver."
        )
    accelerator = "cuda" if has_cuda and device != "cpu" else "cpu"
    if precision == "16-mixed" and accelerator == "cpu":
        raise ArgumentError(
            "loop.precision got '16-mixed', which needs a GPU: float16 has no fast arithmetic on "
            "a CPU. Write bf16-mixed or 32-true."
        )
    world, local = int(os.environ.get(_WORLD, 1)), int(os.environ.get(_LOCAL_WORLD, 1))
    arguments: dict[str, Any] = {"accelerator": accelerator, "precision": precision}
    if world > 1:
        arguments |= {
            "strategy": DDPStrategy(),
            "devices": local,
            "num_nodes": world // local,
        }
    else:
        arguments["devices"] = 1
    with fewer_warnings():
        fabric = Fabric(**arguments)
        fabric.launch()
    return fabric


@contextmanager
def first_buffers(fabric: Fabric, network: nn.Module) -> Iterator[None]:
    """Within, every process has the first one's running statistics, which are the ones kept."""
    if fabric.world_size == 1:
        yield
        return
    own = [buffer.clone() for buffer in network.buffers()]
    for buffer in network.buffers():
        dist.broadcast(buffer, src=0)
    try:
        yield
    finally:
        for buffer, value in zip(network.buffers(), own, strict=True):
            buffer.copy_(value)


@contextmanager
def fewer_warnings() -> Iterator[None]:
    """Silence Fabric's advice on what dlzoo decides by itself, and its banner."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*srun.*")
        warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)`.*")
        try:
            yield
        finally:
            logger.setLevel(level)
