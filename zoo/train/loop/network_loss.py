"""The loss of all that a network gives in training."""

from __future__ import annotations

from torch import Tensor

from dlzoo.zoo.layers.head import LogitsWithAuxiliary
from dlzoo.zoo.train.recipes.recipe import Recipe


def loss_of_network(
    recipe: Recipe, outputs: Tensor | LogitsWithAuxiliary, targets: Tensor
) -> Tensor:
    """The loss of the logits, and with a weight that of each auxiliary head.

    **Source**: Szegedy et al. 2014, "Going deeper with convolutions", section 5.
    """
    if not isinstance(outputs, LogitsWithAuxiliary):
        return recipe.loss(outputs, targets)
    loss = recipe.loss(outputs.logits, targets)
    for auxiliary in outputs.auxiliary:
        loss = loss + recipe.loop.auxiliary_weight * recipe.loss(auxiliary, targets)
    return loss
