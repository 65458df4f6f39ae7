"""Samples made from several: MixUp and CutMix.

Shape legend: N samples, C channels, H and W height and width, K classes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from dlzoo.errors import ArgumentError
from dlzoo.zoo.data.augmentation.geometry import Probability
from dlzoo.zoo.data.sample_draws import SampleDraws
from dlzoo.zoo.settings import Settings


class MixingAugmentation(Settings):
    """Makes each sample from several in the batch; targets become shares of classes.

    The partners of a sample come next to it in a random circular order of the batch
    (:meth:`~dlzoo.zoo.data.sample_draws.SampleDraws.partners`), so they depend on which samples
    are in the batch, but not on their order.
    """

    #: Whether images and targets of several samples are mixed.
    is_mixing: ClassVar[bool] = True
    #: Number of channels that images must have; None for any number.
    num_channels: ClassVar[int | None] = None

    @abstractmethod
    def mix(self, x_NCHW: Tensor, y_NK: Tensor, draws: SampleDraws) -> tuple[Tensor, Tensor]:
        """Mix every sample; the arguments are not changed."""

    def apply(self, x_NCHW: Tensor, y: Tensor, draws: SampleDraws) -> tuple[Tensor, Tensor]:
        """Mix some of the samples with others.

        Args:
            x_NCHW: float32, 0 to 1; not changed.
            y: float32 [N, K], shares of classes, or 0 and 1 for several labels.
            draws: draws of these samples.

        Raises:
            ArgumentError: ``y`` has class numbers.
        """
        if not y.is_floating_point() or y.dim() != 2:
            raise ArgumentError(
                f"`y` got {str(y.dtype).removeprefix('torch.')} "
                f"{list(y.shape)}, expected float32 [N, K]. Make them one-hot, as Pipeline does."
            )
        mixed_x, mixed_y = self.mix(x_NCHW, y, draws)
        probability: float = getattr(self, "probability", 1.0)
        if probability == 1:
            return mixed_x, mixed_y
        is_mixed = draws.bernoulli("apply", probability)
        x_NCHW = torch.where(is_mixed[:, None, None, None], mixed_x, x_NCHW)
        return x_NCHW, torch.where(is_mixed[:, None], mixed_y, y)


class MixUp(MixingAugmentation):
    """Blend each sample with another: ``x <- l x + (1 - l) x'``, ``y <- l y + (1 - l) y'``.

    l ~ Beta(alpha, alpha), drawn per sample (as in the paper's text; its code draws one per batch).

    **Source**: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", section 2.
    """

    name: Literal["mixup"] = "mixup"
    probability: Probability = 1.0
    alpha: float = Field(default=0.2, gt=0)
    """Below 1 most blends are close to one of the two samples; at 1 all shares are equally likely."""

    def mix(self, x_NCHW: Tensor, y_NK: Tensor, draws: SampleDraws) -> tuple[Tensor, Tensor]:
        """Blend every sample."""
        share = draws.beta("share", self.alpha, self.alpha)
        partner = draws.partners("partner", 1)[:, 0]
        x_share, y_share = share[:, None, None, None], share[:, None]
        return (
            x_NCHW * x_share + x_NCHW[partner] * (1 - x_share),
            y_NK * y_share + y_NK[partner] * (1 - y_share),
        )


class CutMix(MixingAugmentation):
    """Paste a rectangle of another image; the labels' shares are those of the pixels.

    With l ~ Beta(alpha, alpha) the rectangle has height ``floor(H sqrt(1 - l))`` and width
    ``floor(W sqrt(1 - l))`` around a centre uniform over the image, and is clipped to the image.
    Then ``y <- (1 - a) y + a y'`` with ``a`` the number of pasted pixels / (H W).

    **Source**: Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers
    with Localizable Features", section 3.1, equations 1 and 2.
    """

    name: Literal["cutmix"] = "cutmix"
    probability: Probability = 0.5
    alpha: float = Field(default=1.0, gt=0)
    """At 1 the area of the rectangle, before it is clipped, is uniform."""

    def mix(self, x_NCHW: Tensor, y_NK: Tensor, draws: SampleDraws) -> tuple[Tensor, Tensor]:
        """Paste into every image."""
        height, width = x_NCHW.shape[2:]
        side_N = (1 - draws.beta("share", self.alpha, self.alpha).double()).sqrt()
        partner = draws.partners("partner", 1)[:, 0]
        in_rows = _is_inside(draws.integers("row", 0, height), side_N, height)
        in_columns = _is_inside(draws.integers("column", 0, width), side_N, width)
        is_pasted = in_rows[:, None, :, None] & in_columns[:, None, None, :]
        num_pasted = in_rows.sum(1) * in_columns.sum(1)
        share = (num_pasted.double() / (height * width)).float()[:, None]
        return (
            torch.where(is_pasted, x_NCHW[partner], x_NCHW),
            y_NK * (1 - share) + y_NK[partner] * share,
        )


def _is_inside(middle_N: Tensor, side_N: Tensor, length: int) -> Tensor:
    """Bool [N, length]: positions within a range of ``side_N`` around a centre."""
    count = (side_N * length).long()[:, None]
    start = middle_N[:, None] - count // 2
    position = torch.arange(length)
    return (position >= start) & (position < start + count)
