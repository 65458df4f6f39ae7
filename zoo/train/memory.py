"""Too little memory: which batch would fit."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlzoo.errors import TrainingError
from dlzoo.zoo.layers.head import LogitsWithAuxiliary

LossOfOutputs = Callable[[Tensor | LogitsWithAuxiliary, Tensor], Tensor]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory is too small: torch has no type for the CPU's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return "DefaultCPUAllocator" in text or "bad_alloc" in text or "not enough memory" in text


def describe_out_of_memory(
    where: str,
    network: nn.Module,
    loss: LossOfOutputs,
    images: Tensor,
    targets: Tensor,
) -> TrainingError:
    """The error to raise: how many images did not fit, and how many would.

    Halves the batch until a forward and a backward pass run through.
    """
    num_images = len(images)
    fitting = num_images // 2
    while fitting and not _fits(network, loss, images[:fitting], targets[:fitting]):
        fitting //= 2
    if not fitting:
        advice = "Not even one image fits: take a smaller network or smaller images."
    else:
        parts = -(-num_images // fitting)
        advice = (
            f"{fitting} do. Write --batch-size {fitting}, or keep the batch and compute it in "
            f"parts: --set loop.micro_batches={parts}."
        )
    return TrainingError(
        f"{where}: memory is too small for {num_images} images at once. {advice}"
    )


def _fits(
    network: nn.Module,
    loss: LossOfOutputs,
    images: Tensor,
    targets: Tensor,
) -> bool:
    network.zero_grad(set_to_none=True)
    gc.collect()
    if images.is_cuda:
        torch.cuda.empty_cache()
    try:
        loss(network(images), targets).backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        network.zero_grad(set_to_none=True)
    return True
