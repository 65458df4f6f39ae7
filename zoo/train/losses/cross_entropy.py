"""Losses of probabilities.

N   samples          K   classes          *   any further axes, such as height and width
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from dlzoo.zoo.settings import Settings
from dlzoo.zoo.train.losses.targets import (
    float_targets,
    require_class_weights,
    require_classes,
    widened,
)

#: One for each class, not all of them zero: the loss would always be 0.
ClassWeights = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]


class CrossEntropy(Settings):
    """Negated log-likelihood of the targets under the softmax of the outputs.

    ``mean_n sum_k w_k q_nk (-log softmax(x_n)_k)``, with ``q_n = (1 - e) t_n + e / K``, the
    target smoothed by ``e``

    Weights multiply terms; the sum is divided by the number of samples, not by the sum of their
    weights, so the loss of a batch is the mean over its parts, whatever classes they contain.

    Source:
        Bishop 2006, "Pattern recognition and machine learning", equation 4.108; label
        smoothing: Szegedy et al. 2016, "Rethinking the Inception architecture", section 7.

    Shape:
        Outputs [N, K, *] and targets int64 [N, *] or floats [N, K, *] to a scalar.

    Raises:
        ArgumentError: targets that do not match the outputs.
    """

    name: Literal["cross-entropy"] = "cross-entropy"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread evenly over all classes."""
    class_weights: ClassWeights | None = None
    """Factor of each class, for example larger for rare classes."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over samples."""
        outputs = widened(outputs)
        require_classes(outputs, targets, self.name)
        if targets.is_floating_point():
            targets = targets.to(outputs.dtype)
        weights = None
        if self.class_weights is not None:
            weights = require_class_weights(self.class_weights, outputs, self.name)
        total = functional.cross_entropy(
            outputs,
            targets,
            weight=weights,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return total / max(1, outputs.numel() // outputs.shape[1])


class BinaryCrossEntropy(Settings):
    """Negated log-likelihood of each class on its own: a sample can have several classes.

    ``mean_nk -(w t log s(x) + (1 - t) log(1 - s(x)))``, s the sigmoid, w ``positive_weight``

    Source:
        Bishop 2006, "Pattern recognition and machine learning", equation 4.90.

    Shape:
        Outputs [N, K, *] and targets floats [N, K, *] (or int64 [N, *]: one class against all
        others) to a scalar, the mean over samples and classes.

    Raises:
        ArgumentError: targets that do not match the outputs.
    """

    name: Literal["binary-cross-entropy"] = "binary-cross-entropy"
    positive_weight: Annotated[float, Field(ge=0)] | ClassWeights = 1.0
    """Factor of the positive targets: one number for all classes, or one for each class."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over samples and classes."""
        outputs = widened(outputs)
        targets = float_targets(outputs, targets, self.name)
        if isinstance(self.positive_weight, float):
            weight_K = outputs.new_tensor([self.positive_weight])
        else:
            weight_K = require_class_weights(self.positive_weight, outputs, self.name)
        # The classes are axis 1, and further axes may follow.
        weight = weight_K.reshape(-1, *[1] * (outputs.dim() - 2))
        return functional.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weight)


class RbfMap(Settings):
    """LeNet-5's own loss: outputs are negated penalties, and the true class's should be small.

    ``mean_n (y_nt + log(exp(-j) + sum_k exp(-y_nk)))``, y = -outputs the penalties, t the true
    class

    It is the cross-entropy over K + 1 classes, of which the last ("rubbish") always has the
    penalty j: once the penalties of all wrong classes are far above j, they grow no further.

    Source:
        LeCun et al. 1998, "Gradient-based learning applied to document recognition", section
        II.C, equation 9 (maximum a posteriori). The paper asks for a positive j and gives none.

    Shape:
        Outputs [N, K] and targets int64 [N] or floats [N, K] that add up to 1, to a scalar.

    Raises:
        ArgumentError: targets that do not match the outputs.
    """

    name: Literal["rbf-map"] = "rbf-map"
    rubbish_penalty: float = Field(default=1.0, gt=0)
    """The penalty j of the class for images of no class."""

    def __call__(self, outputs_NK: Tensor, targets: Tensor) -> Tensor:
        """The mean over samples."""
        outputs_NK = widened(outputs_NK)
        require_classes(outputs_NK, targets, self.name)
        rubbish_N1 = outputs_NK.new_full((len(outputs_NK), 1), -self.rubbish_penalty)
        if targets.is_floating_point():
            none_N1 = torch.zeros_like(rubbish_N1)
            targets = torch.cat([targets.to(outputs_NK.dtype), none_N1], dim=1)
        return functional.cross_entropy(torch.cat([outputs_NK, rubbish_N1], dim=1), targets)
