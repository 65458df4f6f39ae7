"""A network's outputs over a whole data set, computed by one process or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from dlzoo.zoo.data.batches import BatchStream
from dlzoo.zoo.train.losses.loss import learns_embeddings
from dlzoo.zoo.train.scores.metrics import ClassificationMetrics, MultiLabelMetrics

#: Figures of class scores, for images with one label and with several.
CLASS_FIGURES = ("top1_percent", "map_percent")
LossOfOutputs = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Scores:
    """Figures of a network's outputs.

    ``figures`` has ``num_images`` and ``loss``; for one label per image also ``top1_percent`` and
    ``top5_percent``, for several ``map_percent`` and ``mean_f1_percent``. A network whose outputs
    are not class scores has only a loss.
    """

    figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The figures, with None for NaN and Inf, which JSON does not have."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in self.figures.items()
        }

    @property
    def loss(self) -> float:
        """Mean over the images."""
        return float(self.figures["loss"])


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
    """Run a network in eval mode over all batches; every process returns all outputs.

    Args:
        network: without Fabric's wrapper; it keeps its mode.
        batches: not shuffled, and complete.
        loss: of outputs and targets, a mean over the images.
        fabric: the processes.
    """
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    indices: list[Tensor] = []
    with in_eval_mode(network), torch.no_grad():
        for batch in batches.epoch(0):
            if not len(batch):
                continue
            images = batch.images.to(fabric.device, dtype_of(network))
            outputs.append(network(images).float().cpu())
            targets.append(batch.targets)
            indices.append(batch.indices)
    mine = [outputs, targets, indices]
    everyone = [mine]
    if fabric.world_size > 1:
        everyone = [mine] * fabric.world_size
        dist.all_gather_object(everyone, mine)
    # A process may have no images: lists are joined, because an empty one has no shape.
    joined = [torch.cat([x for part in everyone for x in part[kind]]) for kind in range(3)]
    order = joined[2].argsort()
    all_outputs, all_targets = joined[0][order], joined[1][order]
    return Prediction(all_outputs, all_targets, score(all_outputs, all_targets, loss))


def score(outputs: Tensor, targets: Tensor, loss: LossOfOutputs) -> Scores:
    """Compute the figures in data set order, so that batches and processes do not affect them."""
    figures: dict[str, Any] = {
        "num_images": len(targets),
        "loss": float(loss(outputs, targets)),
    }
    if outputs.dim() != 2 or learns_embeddings(loss):
        return Scores(figures)
    num_classes = outputs.shape[1]
    if targets.dim() == 2:
        several = MultiLabelMetrics(num_classes)
        several.update(torch.sigmoid(outputs), targets)
        more = several.results()
    elif int(targets.max()) < num_classes:
        metrics = ClassificationMetrics(num_classes)
        metrics.update(outputs, targets)
        more = metrics.results()
    else:
        return Scores(figures)
    known = ("num_samples", "loss")
    return Scores(figures | {k: v for k, v in more.items() if k not in known})


def dtype_of(network: nn.Module) -> torch.dtype:
    """The type of a network's weights, and so of its input."""
    types = (p.dtype for p in network.parameters() if p.is_floating_point())
    return next(types, torch.float32)


def count_correct(outputs: Tensor, targets: Tensor) -> int:
    """Images whose largest output is the (most probable) target; 0 if outputs are not scores."""
    if outputs.dim() != 2:
        return 0
    labels = targets if targets.dim() == 1 else targets.argmax(dim=1)
    return int((outputs.argmax(dim=1) == labels).sum())


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Put every module into eval mode for a while; afterwards each has its own mode again."""
    modes = {part: part.training for part in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
