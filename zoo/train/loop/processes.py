"""The processes that train together, their devices and their arithmetic, by Lightning Fabric."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.train.recipes.recipe import Precision

#: Environment variables that torchrun sets in each process.
_WORLD, _LOCAL_WORLD = "WORLD_SIZE", "LOCAL_WORLD_SIZE"


def make_fabric(*, device: str, precision: Precision) -> Fabric:
    """Join the processes started by torchrun, or set up a single one.

    Args:
        device: ``auto`` (CUDA if there is a GPU), ``cpu`` or ``cuda``.
        precision: name of the arithmetic in Lightning Fabric.

    Raises:
        ArgumentError: the device is unavailable, or does not support the arithmetic.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ArgumentError(f"`device` got {device!r}, expected auto, cpu or cuda.")
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ArgumentError(
            "`device` got 'cuda', but torch finds no GPU here. Omit it, or install the torch "
            "build for your driver."
        )
    accelerator = "cuda" if has_cuda and device != "cpu" else "cpu"
    if precision == "16-mixed" and accelerator == "cpu":
        raise ArgumentError(
            "`loop.precision` got '16-mixed', which needs a GPU: float16 has no fast arithmetic on "
            "a CPU. Use bf16-mixed or 32-true."
        )
    world, local = int(os.environ.get(_WORLD, 1)), int(os.environ.get(_LOCAL_WORLD, 1))
    with fewer_warnings():
        fabric = Fabric(
            accelerator=accelerator,
            precision=precision,
            strategy=DDPStrategy() if world > 1 else "auto",
            devices=local if world > 1 else 1,
            num_nodes=world // local if world > 1 else 1,
        )
        fabric.launch()
    return fabric


@contextmanager
def first_buffers(fabric: Fabric, network: nn.Module) -> Iterator[None]:
    """Give every process the first one's running statistics for a while, as only those are saved."""
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
    """Silence Fabric's banner and its advice on settings that dlzoo chooses."""
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
