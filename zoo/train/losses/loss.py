"""The losses that a recipe chooses from by name, and the loss of a network with several heads."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from dlzoo.zoo.layers.head import LogitsWithAuxiliary
from dlzoo.zoo.train.losses.cross_entropy import BinaryCrossEntropy, CrossEntropy, RbfMap
from dlzoo.zoo.train.losses.distances import Huber, MeanAbsoluteError, MeanSquaredError
from dlzoo.zoo.train.losses.embeddings import Contrastive, Triplet
from dlzoo.zoo.train.losses.imbalance import Dice, Focal

Loss = Annotated[
    CrossEntropy
    | BinaryCrossEntropy
    | MeanSquaredError
    | MeanAbsoluteError
    | Huber
    | Contrastive
    | Triplet
    | Focal
    | Dice
    | RbfMap,
    Field(discriminator="name"),
]

#: Source: Szegedy et al. 2014, "Going deeper with convolutions", section 5.
AUXILIARY_WEIGHT = 0.3


def loss_of_all_heads(
    loss: Loss,
    outputs: Tensor | LogitsWithAuxiliary,
    targets: Tensor,
    auxiliary_weight: float = AUXILIARY_WEIGHT,
) -> Tensor:
    """The loss of a network's outputs, those of auxiliary heads added with a weight.

    ``L(logits) + weight * sum_a L(auxiliary_a)``

    Source:
        Szegedy et al. 2014, "Going deeper with convolutions", section 5.

    Shape:
        Outputs [N, K], or several of them, to a scalar.
    """
    if not isinstance(outputs, LogitsWithAuxiliary):
        return loss(outputs, targets)
    total = loss(outputs.logits, targets)
    for auxiliary in outputs.auxiliary:
        total = total + auxiliary_weight * loss(auxiliary, targets)
    return total
