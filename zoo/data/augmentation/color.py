"""Brightness, contrast, hue and saturation.

Shape legend: N samples, C channels, H and W height and width.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from dlzoo.zoo.data.augmentation.geometry import Probability
from dlzoo.zoo.data.augmentation.per_sample import PerSampleAugmentation
from dlzoo.zoo.data.sample_draws import SampleDraws

#: Weights of red, green and blue in a grey level. Source: ITU-R BT.601, as Pillow's "L" has them.
_GREY_WEIGHTS = (0.299, 0.587, 0.114)
#: Grey levels are counted in whole multiples of 2^-20 for the mean: sums of integers do not depend
#: on the order, so neither the batch nor the number of threads has an effect.
_LEVELS = 2**20


class BrightnessContrast(PerSampleAugmentation):
    """Scale the values, then their distance from the image's mean grey level.

    ``x <- clip(b x)``, ``x <- clip(m + c (x - m))`` with m the mean of ``0.299 R + 0.587 G +
    0.114 B`` over the image (of the values themselves for a single channel); b is uniform
    over 1 ± ``brightness``, c over 1 ± ``contrast``. ``clip`` limits values to 0 … 1.

    **Source**: Howard 2013, "Some Improvements on Deep Convolutional Neural Network Based Image
    Classification", section 2; Pillow, ``ImageEnhance`` (which rounds m to a whole level).
    """

    name: Literal["brightness-contrast"] = "brightness-contrast"
    probability: Probability = 1.0
    brightness: float = Field(default=0.2, ge=0, le=1)
    """Largest distance of the brightness factor from 1."""
    contrast: float = Field(default=0.2, ge=0, le=1)
    """Largest distance of the contrast factor from 1."""

    def change(self, x_NCHW: Tensor, draws: SampleDraws) -> Tensor:
        """Change every image."""
        brightness, contrast = (
            draws.uniform(stream, 1 - width, 1 + width)[:, None, None, None]
            for stream, width in (("brightness", self.brightness), ("contrast", self.contrast))
        )
        x_NCHW = (x_NCHW * brightness).clamp_(0, 1)
        mean = _mean_grey(x_NCHW)
        return ((x_NCHW - mean) * contrast).add_(mean).clamp_(0, 1)


class HueSaturation(PerSampleAugmentation):
    """Rotate the hue and scale the saturation, in HSV; for RGB images only.

    ``h <- (h + d) mod 1``, ``s <- min(f s, 1)`` with h and s as in :mod:`colorsys`; d is
    uniform over ±``hue``, f over 1 ± ``saturation``. (With ``kornia.color`` to HSV and back it
    takes 15 ms at [128, 3, 32, 32] on one core, here 6.)

    **Source**: Smith 1978, "Color Gamut Transform Pairs".
    """

    name: Literal["hue-saturation"] = "hue-saturation"
    probability: Probability = 1.0
    hue: float = Field(default=0.05, ge=0, le=0.5)
    """Largest rotation; 1 is a full circle."""
    saturation: float = Field(default=0.2, ge=0, le=1)
    """Largest distance of the saturation factor from 1."""

    num_channels: ClassVar[int | None] = 3

    def change(self, x_NCHW: Tensor, draws: SampleDraws) -> Tensor:
        """Change every image."""
        turn = draws.uniform("hue", -self.hue, self.hue)
        factor = draws.uniform("saturation", 1 - self.saturation, 1 + self.saturation)
        return turn_hue_and_scale_saturation(x_NCHW, turn, factor)


def turn_hue_and_scale_saturation(x_N3HW: Tensor, turn_N: Tensor, factor_N: Tensor) -> Tensor:
    """Change RGB images in HSV, each by its own numbers, see :class:`HueSaturation`."""
    red, green, blue = x_N3HW.unbind(1)
    value = x_N3HW.amax(1)
    chroma = value - x_N3HW.amin(1)
    divisor = torch.where(chroma > 0, chroma, 1)
    # In sixths of the circle: 0 red, 2 green, 4 blue.
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hue += 6 * turn_N[:, None, None]
    # Saturation is chroma / value.
    chroma = torch.minimum(chroma * factor_N[:, None, None], value)
    # Each channel is the value minus the chroma times a trapezium of the hue.
    channels = []
    for shift in (5, 3, 1):
        k = torch.remainder(hue + shift, 6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, 1)


def _mean_grey(x_NCHW: Tensor) -> Tensor:
    """The mean grey level of each image, [N, 1, 1, 1]."""
    if x_NCHW.shape[1] != 3:
        grey_NHW = x_NCHW.mean(1)
    else:
        red, green, blue = x_NCHW.unbind(1)
        grey_NHW = _GREY_WEIGHTS[0] * red + _GREY_WEIGHTS[1] * green + _GREY_WEIGHTS[2] * blue
    total = (grey_NHW * _LEVELS).round_().long().sum((1, 2))
    mean = total.double() / (_LEVELS * grey_NHW[0].numel())
    return mean.float()[:, None, None, None]
