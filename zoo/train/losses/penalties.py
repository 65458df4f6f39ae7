"""Penalties for large weights, which are added to the loss."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dlzoo.zoo.parameter_groups import named_weights
from dlzoo.zoo.settings import Settings


class L1Penalty(Settings):
    """Strength times the sum of absolute weights, which pulls many of them to zero.

    ``strength * sum |w|`` over the trained weights, without norms, biases and other vectors

    Source:
        Tibshirani 1996, "Regression shrinkage and selection via the lasso", equation 1.

    Shape:
        A network to a scalar.
    """

    name: Literal["l1"] = "l1"
    strength: float = Field(gt=0)

    def __call__(self, module: nn.Module) -> Tensor:
        """The penalty of the present weights."""
        return self.strength * _total([w.abs().sum() for w in _trained_weights(module)])


class L2Penalty(Settings):
    """Half the strength times the sum of squared weights.

    ``strength / 2 * sum w^2`` over the trained weights, without norms, biases and other vectors;
    the gradient is ``strength * w``, as for SGD with an equal ``weight_decay``

    Source:
        Krogh & Hertz 1991, "A simple weight decay can improve generalization", equation 3.

    Shape:
        A network to a scalar.
    """

    name: Literal["l2"] = "l2"
    strength: float = Field(gt=0)

    def __call__(self, module: nn.Module) -> Tensor:
        """The penalty of the present weights."""
        total = _total([w.square().sum() for w in _trained_weights(module)])
        return self.strength / 2 * total


Penalty = Annotated[L1Penalty | L2Penalty, Field(discriminator="name")]


def _trained_weights(module: nn.Module) -> list[nn.Parameter]:
    return [weight for _, weight in named_weights(module) if weight.requires_grad]


def _total(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum() if terms else torch.zeros(())
