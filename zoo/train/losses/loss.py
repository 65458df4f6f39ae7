"""The losses that a recipe chooses from by name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

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


def learns_embeddings(loss: object) -> bool:
    """Whether a loss compares images by distance, so that outputs are not class scores."""
    return isinstance(loss, Contrastive | Triplet)
