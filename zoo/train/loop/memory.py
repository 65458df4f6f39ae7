"""Too little memory: which batch would fit."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from dlzoo.errors import TrainingError

#: What torch and NumPy write where an allocation fails; torch has no type for the CPU's.
_SIGNS = ("DefaultCPUAllocator", "bad_alloc", "not enough memory", "Unable to allocate")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory is too small."""
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
    """The error to raise: how many images did not fit, and how many would.

    Halves the batch until a forward and a backward pass over a quarter more run through: memory
    that just suffices once no longer does when later steps have left holes in it. To be called
    where nothing holds what the failed pass computed: not inside its ``except`` block.

    Args:
        where: what the message calls the step.
        run: a forward and a backward pass over so many of the images; None where it cannot be
            tried, as other processes would have to join in: half of the images is the guess.
        num_images: that were computed at once.
        num_parts: a process's share of a batch was divided into so many.
        num_processes: that share the batch.
    """
    fitting = num_images // 2
    while run is not None and fitting and not _fits(run, fitting + fitting // 4):
        fitting //= 2
    if not fitting:
        advice = "Not even one image fits: take a smaller network or smaller images."
    else:
        parts = num_parts * -(-num_images // fitting)
        said = f"{fitting} do" if run is not None else f"Try {fitting}"
        advice = (
            f"{said}. Write --batch-size {fitting * num_processes}, or keep the batch and compute "
            f"it in parts: --set loop.micro_batches={parts}."
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
