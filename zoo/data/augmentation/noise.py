"""Gaussian noise, and blank squares.

Shape legend: N samples, C channels, H and W height and width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from dlzoo.zoo.data.augmentation.geometry import Probability
from dlzoo.zoo.data.augmentation.per_sample import PerSampleAugmentation
from dlzoo.zoo.data.sample_draws import SampleDraws


class GaussianNoise(PerSampleAugmentation):
    """Add independent normal noise to every value: ``out = clip(x + std * n)``, n ~ N(0, 1).

    ``clip`` limits values to 0 … 1.

    **Source**: Bishop 1995, "Training with Noise is Equivalent to Tikhonov Regularization".
    """

    name: Literal["gaussian-noise"] = "gaussian-noise"
    probability: Probability = 1.0
    std: float = Field(default=0.05, gt=0, le=1)
    """Standard deviation, as a share of the range from black to white."""

    def change(self, x_NCHW: Tensor, draws: SampleDraws) -> Tensor:
        """Add noise to every image."""
        noise = draws.normal("noise", std=self.std, shape=tuple(x_NCHW.shape[1:]))
        return noise.add_(x_NCHW).clamp_(0, 1)


class Cutout(PerSampleAugmentation):
    """Erase a square whose centre is uniform over the image, clipped to the image.

    ``out[i, j] = x[i, j]`` except where ``top <= i < top + size`` and ``left <= j < left + size``,
    with ``top`` uniform over ``-size // 2`` … ``H - 1 - size // 2``, and ``left`` likewise. There,
    values are 0 (black) or, with fill "noise", independent and uniform over 0 to 1.

    **Source**: DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural
    Networks with Cutout" (zeros in normalized images, and so the mean colour); Zhong et al. 2020,
    "Random Erasing Data Augmentation" (noise).
    """

    name: Literal["cutout"] = "cutout"
    probability: Probability = 1.0
    size: int = Field(default=8, ge=1)
    """Side of the square, in pixels."""
    fill: Literal["zeros", "noise"] = "zeros"
    """Contents of the square."""

    def change(self, x_NCHW: Tensor, draws: SampleDraws) -> Tensor:
        """Erase a square of every image."""
        height, width = x_NCHW.shape[2:]
        in_rows = self._is_inside(draws, "row", height)[:, None, :, None]
        in_columns = self._is_inside(draws, "column", width)[:, None, None, :]
        filling = (
            draws.uniform("fill", shape=tuple(x_NCHW.shape[1:]))
            if self.fill == "noise"
            else x_NCHW.new_zeros(())
        )
        return torch.where(in_rows & in_columns, filling, x_NCHW)

    def _is_inside(self, draws: SampleDraws, stream: str, length: int) -> Tensor:
        """Bool [N, length]: rows or columns of the square."""
        start = draws.integers(stream, 0, length)[:, None] - self.size // 2
        position = torch.arange(length)
        return (position >= start) & (position < start + self.size)
