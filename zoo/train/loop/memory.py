"""Running out of memory: the largest batch that would fit."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from dlzoo.errors import TrainingError

#: Parts of the messages of torch and NumPy when an allocation fails on the CPU, for which torch
#: has no exception class.
_SIGNS = ("DefaultCPUAllocator", "bad_alloc", "not enough memory", "Unable to allocate")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(sign in str(error) for sign in _SIGNS)


def describe_out_of_memory(
    where: str,
    run: Callable[[int], None] | None,
    num_images: int,
    *,
    num_parts: int = 1,
    num_processes: int = 1,
) -> TrainingError:
    """An error to raise, with the number of images that did not fit and one that would.

    Halves the batch until a forward and a backward pass with a quarter more images succeeds: a
    batch that only just fits no longer does once later steps have fragmented the memory. Call it
    where nothing holds the results of the failed pass, so not inside its ``except`` block.

    Args:
        where: the step's name in the message.
        run: a forward and a backward pass over the given number of images; None if other
                processes would have to take part, in which case half of the images is suggested.
        num_images: number of images that were computed at once.
        num_parts: number of parts into which each process's share of a batch is divided.
        num_processes: number of processes that share a batch.
    """
    fitting = num_images // 2
    while run is not None and fitting and not _fits(run, fitting + fitting // 4):
        fitting //= 2
    if not fitting:
        advice = "Not even one image fits: use a smaller network or smaller images."
    else:
        parts = num_parts * -(-num_images // fitting)
        said = f"{fitting} fit" if run is not None else f"Try {fitting}"
        advice = (
            f"{said}. Set `loop.batch_size` to {fitting * num_processes}, or keep the batch and compute "
            f"it in parts: set `loop.micro_batches` to {parts}."
        )
    return TrainingError(
        f"{where}: memory is too small for {num_images} images at once. {advice}"
    )


def _fits(run: Callable[[int], None], num_images: int) -> bool:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        run(num_images)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True
