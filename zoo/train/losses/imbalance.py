"""Losses for data that is mostly easy or mostly background.

N   samples          K   classes          *   any further axes, such as height and width
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from dlzoo.zoo.settings import Settings
from dlzoo.zoo.train.losses.cross_entropy import ClassWeights
from dlzoo.zoo.train.losses.targets import float_targets, require_class_weights, widened

Scores = Literal["softmax", "sigmoid"]


def _scores(outputs: Tensor, scores: Scores) -> Tensor:
    return outputs.softmax(1) if scores == "softmax" else outputs.sigmoid()


class Focal(Settings):
    """Cross-entropy that gives less weight to samples that are already right.

    ``mean_n sum_k w_k t_nk (1 - p_nk)^gamma (-log p_nk)``, p the softmax of the outputs; with
    ``scores = "sigmoid"`` each class is on its own and p its sigmoid:
    ``mean_nk a t (1 - p)^gamma (-log p) + (1 - a) (1 - t) p^gamma (-log(1 - p))``, and without
    ``alpha`` both factors are 1

    Source:
        Lin et al. 2017, "Focal loss for dense object detection", equations 4 and 5: gamma = 2
        with alpha = 0.25 worked best there.

    Shape:
        Outputs [N, K, *] and targets int64 [N, *] or floats [N, K, *] to a scalar.

    Raises:
        ArgumentError: targets that do not match the outputs.
    """

    name: Literal["focal"] = "focal"
    gamma: float = Field(default=2.0, ge=0, le=10)
    """How much less weight; 0 is cross-entropy."""
    scores: Scores = "softmax"
    """softmax for one class per sample, sigmoid for several (multi-label)."""
    alpha: float | None = Field(default=None, ge=0, le=1)
    """Factor of positive targets with sigmoid scores; negative ones get 1 - alpha."""
    class_weights: ClassWeights | None = None
    """Factor of each class with softmax scores."""

    @model_validator(mode="after")
    def _check_factors(self) -> Focal:
        if self.scores == "softmax" and self.alpha is not None:
            raise ValueError("alpha needs scores = 'sigmoid'; set class_weights instead")
        if self.scores == "sigmoid" and self.class_weights is not None:
            raise ValueError("class_weights need scores = 'softmax'; set alpha instead")
        return self

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over samples, with sigmoid scores over samples and classes."""
        outputs = widened(outputs)
        targets = float_targets(outputs, targets, self.name)
        if self.scores == "sigmoid":
            positive = targets * self._term(functional.logsigmoid(outputs))
            negative = (1 - targets) * self._term(functional.logsigmoid(-outputs))
            if self.alpha is not None:
                positive, negative = self.alpha * positive, (1 - self.alpha) * negative
            return (positive + negative).mean()
        terms = targets * self._term(outputs.log_softmax(1))
        if self.class_weights is not None:
            weight_K = require_class_weights(self.class_weights, outputs, self.name)
            terms = terms * weight_K.reshape(-1, *[1] * (outputs.dim() - 2))
        return terms.sum(1).mean()

    def _term(self, log_p: Tensor) -> Tensor:
        """``(1 - p)^gamma (-log p)``."""
        # For gamma below 1 the power's slope at 0 is infinite, and infinity times 0 is NaN.
        rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        return -(rest**self.gamma) * log_p


class Dice(Settings):
    """One minus the overlap of scores and targets.

    ``mean_n 1 - (2 sum p t + smooth) / (sum p^2 + sum t^2 + smooth)``, sums over the classes
    and further axes of a sample, p the softmax or sigmoid of the outputs

    Source:
        Milletari, Navab & Ahmadi 2016, "V-Net", section 3; Dice 1945, "Measures of the amount
        of ecologic association between species".

    Shape:
        Outputs [N, K, *] and targets int64 [N, *] or floats [N, K, *] to a scalar.

    Raises:
        ArgumentError: targets that do not match the outputs.
    """

    name: Literal["dice"] = "dice"
    smooth: float = Field(default=1.0, gt=0)
    """Added to numerator and denominator, so that samples without positives have a gradient."""
    scores: Scores = "softmax"
    """softmax for one class per sample, sigmoid for several (multi-label)."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over samples."""
        outputs = widened(outputs)
        target_NE = float_targets(outputs, targets, self.name).flatten(1)
        p_NE = _scores(outputs, self.scores).flatten(1)
        overlap_N = 2 * (p_NE * target_NE).sum(1) + self.smooth
        size_N = p_NE.square().sum(1) + target_NE.square().sum(1) + self.smooth
        return (1 - overlap_N / size_N).mean()
