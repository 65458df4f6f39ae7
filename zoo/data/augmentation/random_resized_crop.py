"""Crops of random size and shape, resized to the whole image.

Shape legend: N samples, C channels, H and W height and width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from dlzoo.zoo.data.augmentation.bilinear import sample_bilinear
from dlzoo.zoo.data.augmentation.geometry import Probability
from dlzoo.zoo.data.augmentation.per_sample import FactorRange, PerSampleAugmentation
from dlzoo.zoo.data.sample_draws import SampleDraws

if TYPE_CHECKING:
    from dlzoo.zoo.data.dataset import Window

#: Number of shapes tried before the largest possible part is taken.
#: Source: torchvision, ``RandomResizedCrop.get_params``.
_NUM_TRIES = 10


def _at_most_whole(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[1] > 1:
        raise ValueError(f"a part of {bounds[1]:g} of the area is more than the whole")
    return bounds


class RandomResizedCrop(PerSampleAugmentation):
    """Crop a part of random area and shape, and resize it to the network's size.

    Area / whole area is uniform over ``scale``, width / height log-uniform over ``ratio``, the
    position uniform. If none of ten shapes fits into the image, the largest centred part with a
    shape within ``ratio`` is taken.

    If the data set has originals larger than the network's input, the part is cropped from
    those (:meth:`windows`); otherwise from the images themselves, bilinear:
    ``out[i, j] = x[top + (i + 1/2) h / H - 1/2, left + (j + 1/2) w / W - 1/2]``, clamped to the
    outermost pixels of the part.

    **Source**: Szegedy et al. 2015, "Going Deeper with Convolutions", section 6.
    """

    name: Literal["random-resized-crop"] = "random-resized-crop"
    probability: Probability = 1.0
    scale: Annotated[FactorRange, AfterValidator(_at_most_whole)] = (0.08, 1.0)
    """Smallest and largest share of the area."""
    ratio: FactorRange = Field(default=(3 / 4, 4 / 3))
    """Smallest and largest width / height."""

    def change(self, x_NCHW: Tensor, draws: SampleDraws) -> Tensor:
        """Crop and resize a part of every image."""
        height, width = x_NCHW.shape[2:]
        cut = self._shapes(draws)
        parts = torch.tensor([cut(k, height, width) for k in range(len(draws))])
        top, left, part_height, part_width = (
            parts.double().reshape(-1, 4)[:, :, None].unbind(1)
        )
        row = _positions(height, part_height, top)
        column = _positions(width, part_width, left)
        return sample_bilinear(x_NCHW, row[:, :, None], column[:, None, :], 0.0)

    def windows(self, draws: SampleDraws) -> Window:
        """The parts to crop from originals of any size; the whole image for samples not drawn."""
        cut = self._shapes(draws)
        is_cut = draws.bernoulli("apply", self.probability).tolist()
        return lambda k, height, width: (
            cut(k, height, width) if is_cut[k] else (0, 0, height, width)
        )

    def _shapes(self, draws: SampleDraws) -> Window:
        areas = draws.uniform("area", *self.scale, shape=(_NUM_TRIES,)).tolist()
        log_low, log_high = (math.log(bound) for bound in self.ratio)
        logs = draws.uniform("shape", log_low, log_high, shape=(_NUM_TRIES,)).tolist()
        places = draws.uniform("place", shape=(2,)).tolist()

        def cut(k: int, height: int, width: int) -> tuple[int, int, int, int]:
            for area, log_ratio in zip(areas[k], logs[k], strict=True):
                h = round(math.sqrt(area * height * width / math.exp(log_ratio)))
                w = round(math.sqrt(area * height * width * math.exp(log_ratio)))
                if 1 <= h <= height and 1 <= w <= width:
                    # A draw may round to 1.
                    top = min(int(places[k][0] * (height - h + 1)), height - h)
                    left = min(int(places[k][1] * (width - w + 1)), width - w)
                    return top, left, h, w
            ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
            h = max(1, min(height, round(width / ratio)))
            w = max(1, min(width, round(height * ratio)))
            return (height - h) // 2, (width - w) // 2, h, w

        return cut


def _positions(size: int, part_size_N1: Tensor, start_N1: Tensor) -> Tensor:
    """Positions of the pixels of the result in the image, along one axis: [N, size]."""
    centres = (torch.arange(size) + 0.5) * part_size_N1 / size - 0.5
    return start_N1 + centres.clamp(min=0).minimum(part_size_N1 - 1)
