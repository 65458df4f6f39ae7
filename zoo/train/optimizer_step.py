"""One step of the optimizer: forward, loss, backward, over the parts of one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dlzoo.errors import TrainingError
from dlzoo.zoo.data.batches import Batch
from dlzoo.zoo.layers.head import LogitsWithAuxiliary
from dlzoo.zoo.train.first_bad_layer import describe_first_bad_value
from dlzoo.zoo.train.memory import describe_out_of_memory, is_out_of_memory
from dlzoo.zoo.train.prediction import count_correct

#: Of everything that a network gives in training, and the targets.
LossOfOutputs = Callable[[Tensor | LogitsWithAuxiliary, Tensor], Tensor]
LossOfNetwork = Callable[[nn.Module], Tensor]


@dataclass
class StepResult:
    """What came out of a step in this process."""

    #: Over this process's images, without penalties.
    loss_sum: float = 0.0
    num_correct: int = 0
    num_images: int = 0
    #: Euclidean norm before clipping; 0 where nothing is clipped.
    gradient_norm: float = 0.0


class OptimizerStep:
    """Changes a network by one batch.

    The gradient is that of ``loss + penalties``, the loss a mean over the images of all
    processes: a process with fewer of them counts for less.

    Args:
        fabric: the processes.
        network: as Fabric has set it up.
        optimizer: as Fabric has set it up.
        loss: of outputs and targets, a mean over images.
        penalties: of the network, added once a step.
        clip_norm: the largest norm of the gradient.
        is_channels_last: lay images out as NHWC in memory.
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
            where: what messages call this step.

        Raises:
            TrainingError: the loss is NaN or Inf, or memory is too small; the weights are as
                they were.
        """
        self._optimizer.zero_grad(set_to_none=True)
        if self._fabric.world_size == 1:
            parts = [part for part in parts if len(part)]
        result = StepResult()
        for number, part in enumerate(parts, start=1):
            images, targets = self._moved(part)
            try:
                with self._without_synchronization(number < len(parts)):
                    self._add_part(
                        part, images, targets, result, where, is_last=number == len(parts)
                    )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                advice = describe_out_of_memory(
                    where, self._network, self._loss, images, targets
                )
                raise advice from None
        if self._clip_norm is not None:
            result.gradient_norm = float(
                self._fabric.clip_gradients(  # type: ignore[arg-type]
                    self._network,
                    self._optimizer,
                    max_norm=self._clip_norm,
                    error_if_nonfinite=False,
                )
            )
        self._optimizer.step()
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
        """Add a part's gradient, and what it measured."""
        before = torch.get_rng_state()
        outputs = self._network(images)
        loss = self._loss(outputs, targets)
        value = float(loss.detach())
        # The mean over the images of all processes; Fabric divides gradients by their number.
        total = loss * (len(part) * self._fabric.world_size / part.num_global)
        if is_last:
            for penalty in self._penalties:
                total = total + penalty(self._network)
        if not math.isfinite(float(total.detach())):
            torch.set_rng_state(before)  # the same dropout again
            why = describe_first_bad_value(
                self._network, lambda: self._loss(self._network(images), targets), images
            )
            raise TrainingError(
                f"{where}: the loss is {float(total.detach())}, expected a finite number; {why}. "
                "Take a lower learning rate (--lr), a warm-up, or set loop.clip_norm."
            )
        self._fabric.backward(total)
        logits = outputs.logits if isinstance(outputs, LogitsWithAuxiliary) else outputs
        result.loss_sum += value * len(part)
        result.num_correct += count_correct(logits.detach(), targets)
        result.num_images += len(part)

    def _moved(self, part: Batch) -> tuple[Tensor, Tensor]:
        device = self._fabric.device
        images = part.images.to(device, non_blocking=True)
        if self._is_channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, part.targets.to(device, non_blocking=True)

    def _without_synchronization(self, enabled: bool) -> AbstractContextManager[None]:
        """Let gradients of all but the last part stay in this process."""
        if not enabled or self._fabric.world_size == 1:
            return nullcontext()
        return self._fabric.no_backward_sync(self._network)  # type: ignore[arg-type]
