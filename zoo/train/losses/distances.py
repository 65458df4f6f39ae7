"""Losses from the distance between outputs and targets, element by element.

N   samples          K   outputs          *   any further axes
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from dlzoo.zoo.settings import Settings
from dlzoo.zoo.train.losses.targets import float_targets, widened


class MeanSquaredError(Settings):
    """Mean of squared differences.

    ``mean_nk (x - t)^2``; for a class number, t is 1 at that class and 0 at all others

    Source:
        Bishop 2006, "Pattern recognition and machine learning", equation 1.2.

    Shape:
        Outputs [N, K, *] and targets int64 [N, *] or floats [N, K, *] to a scalar.

    Raises:
        ArgumentError: targets that do not match the outputs.
    """

    name: Literal["mse"] = "mse"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over samples and outputs."""
        outputs = widened(outputs)
        return functional.mse_loss(outputs, float_targets(outputs, targets, self.name))


class MeanAbsoluteError(Settings):
    """Mean of absolute differences: less affected by outliers than squares.

    ``mean_nk |x - t|``; for a class number, t is 1 at that class and 0 at all others

    Source:
        Hastie, Tibshirani & Friedman 2009, "The elements of statistical learning", section
        10.6.

    Shape:
        Outputs [N, K, *] and targets int64 [N, *] or floats [N, K, *] to a scalar.

    Raises:
        ArgumentError: targets that do not match the outputs.
    """

    name: Literal["mae"] = "mae"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over samples and outputs."""
        outputs = widened(outputs)
        return functional.l1_loss(outputs, float_targets(outputs, targets, self.name))


class Huber(Settings):
    """Squared differences near the target, absolute differences far from it.

    ``mean_nk d^2 / 2`` where ``d = |x - t| <= delta``, else ``delta (d - delta / 2)``

    Source:
        Huber 1964, "Robust estimation of a location parameter", section 1.

    Shape:
        Outputs [N, K, *] and targets int64 [N, *] or floats [N, K, *] to a scalar.

    Raises:
        ArgumentError: targets that do not match the outputs.
    """

    name: Literal["huber"] = "huber"
    delta: float = Field(default=1.0, gt=0)
    """The difference above which the loss grows linearly."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over samples and outputs."""
        outputs = widened(outputs)
        targets = float_targets(outputs, targets, self.name)
        return functional.huber_loss(outputs, targets, delta=self.delta)
