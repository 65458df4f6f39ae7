"""A network's outputs over a whole data set, whichever processes share the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from dlzoo.zoo.data.batches import BatchStream

LossOfOutputs = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Scores:
    """How good a network's outputs are."""

    loss: float
    top1_percent: float
    num_images: int


@dataclass(frozen=True)
class Prediction:
    """Outputs of every image, in the data set's order.

    **Shape**: outputs float32 [N, ...], targets int64 [N] or float32 [N, K].
    """

    outputs: Tensor
    targets: Tensor
    scores: Scores


def predict(
    network: nn.Module, batches: BatchStream, loss: LossOfOutputs, fabric: Fabric
) -> Prediction:
    """Run a network in eval mode over all batches; every process gets all outputs.

    Args:
        network: without Fabric's wrapping; left in the mode it was in.
        batches: not shuffled and with nothing left out.
        loss: of outputs and targets, a mean over images.
        fabric: the processes.
    """
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    indices: list[Tensor] = []
    with in_eval_mode(network), torch.no_grad():
        for batch in batches.epoch(0):
            if not len(batch):
                continue
            outputs.append(network(batch.images.to(fabric.device)).float().cpu())
            targets.append(batch.targets)
            indices.append(batch.indices)
    mine = (torch.cat(outputs), torch.cat(targets), torch.cat(indices))
    everyone = [mine]
    if fabric.world_size > 1:
        everyone = [mine] * fabric.world_size
        dist.all_gather_object(everyone, mine)
    order = torch.cat([part[2] for part in everyone]).argsort()
    all_outputs = torch.cat([part[0] for part in everyone])[order]
    all_targets = torch.cat([part[1] for part in everyone])[order]
    return Prediction(all_outputs, all_targets, score(all_outputs, all_targets, loss))


def score(outputs: Tensor, targets: Tensor, loss: LossOfOutputs) -> Scores:
    """Loss and accuracy of outputs, in the order of the data set: the same for any batches."""
    return Scores(
        loss=float(loss(outputs, targets)),
        top1_percent=100 * count_correct(outputs, targets) / len(targets),
        num_images=len(targets),
    )


def count_correct(outputs: Tensor, targets: Tensor) -> int:
    """Images whose largest output is the (most probable) target; 0 where outputs are no scores."""
    if outputs.dim() != 2:
        return 0
    labels = targets if targets.dim() == 1 else targets.argmax(dim=1)
    return int((outputs.argmax(dim=1) == labels).sum())


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Within, every module evaluates; after, each is in the mode it was in."""
    modes = {part: part.training for part in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
