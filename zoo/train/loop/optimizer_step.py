"""One step of the optimizer: forward pass, loss and backward pass over the parts of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dlzoo.errors import TrainingError, describe_exception
from dlzoo.zoo.data.batches import Batch
from dlzoo.zoo.layers.head import LogitsWithAuxiliary
from dlzoo.zoo.train.loop.first_bad_layer import describe_first_bad_value
from dlzoo.zoo.train.loop.memory import describe_out_of_memory, is_out_of_memory
from dlzoo.zoo.train.loop.synchronized_norm import without_synchronization
from dlzoo.zoo.train.scores.prediction import count_correct, dtype_of

#: A loss of the network's outputs in training and the targets.
LossOfOutputs = Callable[[Tensor | LogitsWithAuxiliary, Tensor], Tensor]
LossOfNetwork = Callable[[nn.Module], Tensor]


@dataclass
class StepResult:
    """Measurements of a step in this process."""

    #: Sum over this process's images, without penalties.
    loss_sum: float = 0.0
    num_correct: int = 0
    num_images: int = 0
    #: Euclidean norm before clipping; 0 without clipping.
    gradient_norm: float = 0.0


class OptimizerStep:
    """Changes a network by one batch.

    The gradient is that of ``loss + penalties``, where the loss is a mean over the images of all
    processes: a process with fewer images has less weight.

    Args:
        fabric: the processes.
        network: as returned by Fabric's ``setup``.
        optimizer: as returned by Fabric's ``setup``.
        loss: loss of outputs and targets, a mean over images.
        penalties: penalties of the network, added once per step.
        clip_norm: largest norm of the gradient; None for no clipping.
        is_channels_last: whether to store images as NHWC in memory.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        loss: LossOfOutputs,
        penalties: Sequence[LossOfNetwork],
        clip_norm: float | None,
        is_channels_last: bool,
    ) -> None:
        self._fabric = fabric
        self._network = network
        self._optimizer = optimizer
        self._loss = loss
        self._penalties = penalties
        self._clip_norm = clip_norm
        self._is_channels_last = is_channels_last

    def run(self, parts: Sequence[Batch], *, where: str) -> StepResult:
        """Take one step.

        Args:
            parts: this process's share of a global batch.
            where: the step's name in messages.

        Raises:
            TrainingError: the loss is NaN or Inf, memory ran out, or a normalization got a single
                    value; the weights are unchanged.
        """
        self._optimizer.zero_grad(set_to_none=True)
        # All processes leave out the same parts: those that are empty in every process.
        parts = [p for p in parts if p.num_global > p.part * self._fabric.world_size]
        result = StepResult()
        for number, part in enumerate(parts, start=1):
            images, targets = self._moved(part)
            is_last = number == len(parts)
            is_memory_full = False
            try:
                with self._kept_here(not is_last):
                    self._add_part(part, images, targets, result, where, is_last=is_last)
            except (RuntimeError, ValueError, MemoryError) as error:
                is_memory_full = is_out_of_memory(error)
                if not is_memory_full:
                    _explain(error, where, part)
            # Not inside the except block, where the error still holds everything the pass computed.
            if is_memory_full:
                self._optimizer.zero_grad(set_to_none=True)
                is_alone = self._fabric.world_size == 1
                raise describe_out_of_memory(
                    where,
                    partial(self._try_part, images, targets) if is_alone else None,
                    len(part),
                    num_parts=len(parts),
                    num_processes=self._fabric.world_size,
                )
        if self._clip_norm is not None:
            result.gradient_norm = float(
                self._fabric.clip_gradients(  # type: ignore[arg-type]
                    self._network,
                    self._optimizer,
                    max_norm=self._clip_norm,
                    error_if_nonfinite=False,
                )
            )
        try:
            self._optimizer.step()
        except RuntimeError as error:
            # The first step allocates the optimizer's state.
            if is_out_of_memory(error):
                raise TrainingError(
                    f"{where}: memory is too small for the state of the optimizer beside the "
                    "weights. Use one with less state (sgd), or a smaller network."
                ) from None
            if "without overflow" in str(error):
                raise TrainingError(
                    f"{where}: the learning rate is too large for the network's number type. "
                    "Lower `optimizer.lr`."
                ) from None
            raise
        return result

    def _add_part(
        self,
        part: Batch,
        images: Tensor,
        targets: Tensor,
        result: StepResult,
        where: str,
        *,
        is_last: bool,
    ) -> None:
        """Add the gradient and the measurements of one part."""
        before = torch.get_rng_state()
        outputs = self._network(images)
        # A process without images of this batch still takes part in collective operations.
        loss = self._loss(outputs, targets) if len(part) else _zero_of(outputs)
        value = float(loss.detach())
        # A mean over the images of all processes; Fabric divides gradients by the number of processes.
        total = loss * (len(part) * self._fabric.world_size / part.num_global)
        if is_last:
            for penalty in self._penalties:
                total = total + penalty(self._network)
        if not math.isfinite(float(total.detach())):
            torch.set_rng_state(before)  # the same dropout again
            plain: nn.Module = self._network.module  # type: ignore[assignment]
            images = images.to(dtype_of(plain))
            # The other processes take no part in this pass.
            with without_synchronization(plain), self._fabric.autocast():
                why = describe_first_bad_value(
                    plain, lambda: self._loss(plain(images), targets), images
                )
            raise TrainingError(
                f"{where}: the loss is {float(total.detach())}, expected a finite number; {why}. "
                "Lower `optimizer.lr`, add a warm-up, or set `loop.clip_norm`."
            )
        self._fabric.backward(total)
        if not len(part):
            return
        logits = outputs.logits if isinstance(outputs, LogitsWithAuxiliary) else outputs
        result.loss_sum += value * len(part)
        result.num_correct += count_correct(logits.detach(), targets)
        result.num_images += len(part)

    def _try_part(self, images: Tensor, targets: Tensor, num_images: int) -> None:
        """Compute the gradient of the first ``num_images`` images, and discard it."""
        # Memory for the state that the first step will allocate; Adam keeps two values per weight.
        to_come = [] if self._optimizer.state else list(self._network.parameters())
        held = [torch.empty_like(weight) for weight in to_come for _ in range(2)]
        try:
            outputs = self._network(images[:num_images])
            self._fabric.backward(self._loss(outputs, targets[:num_images]))
        finally:
            del held
            self._optimizer.zero_grad(set_to_none=True)

    def _moved(self, part: Batch) -> tuple[Tensor, Tensor]:
        device = self._fabric.device
        images = part.images.to(device, non_blocking=True)
        if self._is_channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, part.targets.to(device, non_blocking=True)

    def _kept_here(self, enabled: bool) -> AbstractContextManager[None]:
        """Keep the gradients of all parts but the last in this process."""
        if not enabled or self._fabric.world_size == 1:
            return nullcontext()
        return self._fabric.no_backward_sync(self._network)  # type: ignore[arg-type]


def _zero_of(outputs: Tensor | LogitsWithAuxiliary) -> Tensor:
    """A loss of 0 that depends on every output, for an empty batch."""
    if not isinstance(outputs, LogitsWithAuxiliary):
        return outputs.sum()
    total = outputs.logits.sum()
    for auxiliary in outputs.auxiliary:
        total = total + auxiliary.sum()
    return total


def _explain(error: Exception, where: str, part: Batch) -> NoReturn:
    """Turn errors of torch that a recipe can avoid into one line; raise all others unchanged."""
    if "Expected more than 1" in str(error):
        raise TrainingError(
            f"{where}: a normalization got {len(part)} images of a single value for each channel, "
            "which has no variance. Use larger batches, or drop the last one: set "
            "`loop.drop_last` to true."
        ) from None
    if not len(part) and isinstance(error, RuntimeError):
        raise TrainingError(
            f"{where}: the batch has {part.num_global} images, too few for every process and "
            f"part, and the network accepts no empty batch: {describe_exception(error)}. Drop the "
            "last batch: set `loop.drop_last` to true."
        ) from None
    raise error
