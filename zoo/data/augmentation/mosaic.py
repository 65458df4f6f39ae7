"""Mosaics of four images.

Shape legend: N samples, C channels, H and W height and width, K classes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import AfterValidator
from torch import Tensor

from dlzoo.zoo.data.augmentation.bilinear import sample_bilinear
from dlzoo.zoo.data.augmentation.geometry import Probability
from dlzoo.zoo.data.augmentation.mixing import MixingAugmentation
from dlzoo.zoo.data.augmentation.per_sample import FactorRange
from dlzoo.zoo.data.sample_draws import SampleDraws


def _at_most_one(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[1] > 1:
        raise ValueError(f"{bounds[1]:g} is more than 1")
    return bounds


_Shares = Annotated[FactorRange, AfterValidator(_at_most_one)]


class Mosaic(MixingAugmentation):
    """Arrange parts of four images around a point; the labels' shares are those of the pixels.

    The point is ``round(c H)`` below the top and ``round(d W)`` right of the left edge, c and d
    uniform over ``middle``. The sample and three others of the batch fill the four fields in
    random order. In each field, the image is shrunk by its own factor, uniform over ``scale``
    but large enough to fill the field, and the visible part is uniform over
    the image (bilinear, without smoothing). ``y <- sum_q a_q y_q`` with ``a_q`` the field's
    number of pixels / (H W).

    **Source**: Bochkovskiy, Wang and Liao 2020, "YOLOv4: Optimal Speed and Accuracy of Object
    Detection", section 3.4 (there for boxes; shares of labels by area as in CutMix).
    """

    name: Literal["mosaic"] = "mosaic"
    probability: Probability = 0.5
    middle: _Shares = (0.3, 0.7)
    """Range of the point where the four images meet, as shares of height and width."""
    scale: _Shares = (0.5, 1.0)
    """Range of the factor by which images are scaled."""

    def mix(self, x_NCHW: Tensor, y_NK: Tensor, draws: SampleDraws) -> tuple[Tensor, Tensor]:
        """Make a mosaic of every sample and three others."""
        height, width = x_NCHW.shape[2:]
        sources = _sources(draws)
        split_row = _split(draws, "row", self.middle, height)
        split_column = _split(draws, "column", self.middle, width)
        out, target = torch.empty_like(x_NCHW), torch.zeros_like(y_NK)
        for field in range(4):
            top, bottom = _bounds(split_row, field // 2, height)
            left, right = _bounds(split_column, field % 2, width)
            # Large enough that the image fills the field.
            scale = torch.maximum(
                draws.uniform(f"scale/{field}", *self.scale).double(),
                torch.maximum((bottom - top) / height, (right - left) / width),
            )
            place = draws.uniform(f"place/{field}", shape=(2,)).double().unbind(1)
            row = _positions(top, bottom, scale, place[0], height)
            column = _positions(left, right, scale, place[1], width)
            source = sources[:, field]
            part = sample_bilinear(x_NCHW[source], row[:, :, None], column[:, None, :], 0.0)
            in_rows = _is_between(top, bottom, height)[:, None, :, None]
            in_columns = _is_between(left, right, width)[:, None, None, :]
            out = torch.where(in_rows & in_columns, part, out)
            share = (bottom - top) * (right - left) / (height * width)
            target += share.float()[:, None] * y_NK[source]
        return out, target


def _sources(draws: SampleDraws) -> Tensor:
    """Positions in the batch of the four images, [N, 4]: the sample and three others, shuffled."""
    itself = torch.arange(len(draws))[:, None]
    four = torch.cat([itself, draws.partners("partner", 3)], dim=1)
    order = draws.uniform("arrangement", shape=(4,)).argsort(dim=1, stable=True)
    return four.gather(1, order)


def _split(
    draws: SampleDraws, stream: str, middle: tuple[float, float], length: int
) -> Tensor:
    return (draws.uniform(stream, *middle).double() * length).round()


def _bounds(split_N: Tensor, half: int, length: int) -> tuple[Tensor, Tensor]:
    """First row (or column) of a field, and the one after its last."""
    if half == 0:
        return torch.zeros_like(split_N), split_N
    return split_N, torch.full_like(split_N, length)


def _is_between(start_N: Tensor, stop_N: Tensor, length: int) -> Tensor:
    position = torch.arange(length)
    return (position >= start_N[:, None]) & (position < stop_N[:, None])


def _positions(
    start_N: Tensor, stop_N: Tensor, scale_N: Tensor, place_N: Tensor, length: int
) -> Tensor:
    """Position along an axis of its image at which each pixel of a field is read, [N, length].

    Pixels outside of the field are read anywhere in the image, and are not used.
    """
    part = (stop_N - start_N) / scale_N  # visible pixels of the image
    first = place_N * (length - part)
    offset = torch.arange(length) + 0.5 - start_N[:, None]
    position = first[:, None] + offset / scale_N[:, None] - 0.5
    return position.clamp(0, length - 1)
