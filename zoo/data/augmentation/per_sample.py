"""Augmentations that change each sample on its own.

Shape legend: N samples, C channels, H and W height and width, K classes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field
from torch import Tensor

from dlzoo.zoo.data.sample_draws import SampleDraws
from dlzoo.zoo.settings import Settings


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    if low > high:
        raise ValueError(f"the lower bound {low:g} is above the upper one {high:g}")
    return bounds


_Positive = Annotated[float, Field(gt=0)]
#: Lower and upper bound of a positive factor.
FactorRange = Annotated[tuple[_Positive, _Positive], AfterValidator(_ordered)]


class PerSampleAugmentation(Settings):
    """Changes images one by one, each with ``probability``; targets are not changed.

    The result for an image depends on its own draws, not on the rest of the batch.
    """

    #: Whether images and targets of several samples are mixed.
    is_mixing: ClassVar[bool] = False
    #: Number of channels that images must have; None for any number.
    num_channels: ClassVar[int | None] = None

    @abstractmethod
    def change(self, x_NCHW: Tensor, draws: SampleDraws) -> Tensor:
        """Change every image; ``x_NCHW`` itself is not changed."""

    def apply(self, x_NCHW: Tensor, y: Tensor, draws: SampleDraws) -> tuple[Tensor, Tensor]:
        """Change some of the images.

        Args:
            x_NCHW: float32, 0 to 1; not changed.
            y: targets, returned unchanged.
            draws: draws of these samples.
        """
        probability: float = getattr(self, "probability", 1.0)
        if probability == 1:
            return self.change(x_NCHW, draws), y
        chosen = draws.bernoulli("apply", probability).nonzero()[:, 0]
        if len(chosen) == 0:
            return x_NCHW, y
        changed = self.change(x_NCHW[chosen], draws.select(chosen))
        return x_NCHW.index_copy(0, chosen, changed), y
