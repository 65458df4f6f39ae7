"""Exact statistics of 8-bit images, in one pass.

All sums are sums of whole numbers that are represented exactly, so the order of the images, the
size of the batches and the number of threads have no effect.

Shape legend: N images, C channels, H and W height and width, D = C * H * W.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from dlzoo.errors import ArgumentError

#: Rows of a float32 matrix product whose sums are exact: 256 * 255^2 < 2^24.
_EXACT_ROWS = 256
#: The largest number of values per image for whitening: a matrix of 4096 x 4096 float32 numbers
#: takes 64 MiB in a bundle; fitting needs eight times as much.
MAX_WHITENED_VALUES = 4096


class ChannelHistogram:
    """Counts of the 256 levels in each channel.

    All statistics of single pixels follow from it: with ``h[v]`` pixels of level v, n in all,
    ``mean = sum v h[v] / n``, ``std = sqrt(n sum v^2 h[v] - (sum v h[v])^2) / n``; divided by 255.
    """

    def __init__(self, images: Iterable[Tensor]) -> None:
        """Count levels.

        Args:
            images: batches, uint8 [N, C, H, W].

        Raises:
            ArgumentError: there are no images, or their type or number of channels differs.
        """
        counts: Tensor | None = None
        for batch in checked_batches(images):
            added = torch.stack(
                [
                    torch.bincount(channel.reshape(-1), minlength=256)
                    for channel in batch.unbind(1)
                ]
            )
            counts = added if counts is None else counts + added
        assert counts is not None
        #: Number of pixels of each level: C lists of 256.
        self.counts: list[list[int]] = counts.tolist()

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, 0 to 1."""
        return tuple(_sum(h, 1) / (255 * sum(h)) for h in self.counts)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel (over n, not n - 1), 0 to 1/2."""
        return tuple(_std(sum(h), _sum(h, 1), _sum(h, 2)) for h in self.counts)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """Smallest and largest value of each channel, 0 to 1."""
        levels = [[v for v, count in enumerate(h) if count] for h in self.counts]
        return tuple((present[0] / 255, present[-1] / 255) for present in levels)


class PixelCovariance:
    """Mean of each of an image's D values, and their covariance.

    ``mean = s / n``, ``covariance = (n G - s s^T) / n^2`` with ``s = sum x`` and ``G = sum x x^T``
    of the levels as whole numbers; divided by 255 and 255^2. (s and G are exact up to 10^11
    images, n G and s s^T up to 370 000; with more images they are rounded once.)
    """

    def __init__(self, images: Iterable[Tensor]) -> None:
        """Accumulate the sums.

        Args:
            images: batches, uint8 [N, C, H, W], all of one size.

        Raises:
            ArgumentError: there are no images, their type or size differs, or they are too
                large for a matrix.
        """
        self.num_images = 0
        total: Tensor | None = None
        for batch in checked_batches(images):
            rows_ND = batch.reshape(len(batch), -1)
            if total is None:
                num_values = rows_ND.shape[1]
                _refuse_large(batch, num_values)
                total = torch.zeros(num_values, dtype=torch.int64)
                products = torch.zeros(num_values, num_values, dtype=torch.float64)
            elif rows_ND.shape[1] != len(total):
                raise ArgumentError(
                    f"An image has {rows_ND.shape[1]} values, but those before it have {len(total)}: "
                    "whitening needs images of one size."
                )
            self.num_images += len(batch)
            total += rows_ND.sum(0)
            for part in torch.split(rows_ND, _EXACT_ROWS):
                levels = part.float()
                products += levels.T @ levels
        assert total is not None
        num_channels = batch.shape[1]
        count = self.num_images * len(total) // num_channels
        by_channel = total.reshape(num_channels, -1).sum(1).tolist()
        squares = products.diagonal().reshape(num_channels, -1).sum(1).long().tolist()
        #: Each channel's standard deviation, as in :class:`ChannelHistogram`.
        self.channel_mean = tuple(s / (255 * count) for s in by_channel)
        self.channel_std = tuple(
            _std(count, s, q) for s, q in zip(by_channel, squares, strict=True)
        )
        sums = total.double()
        #: [D], 0 to 1.
        self.mean = sums / (255 * self.num_images)
        #: [D, D].
        self.covariance = products.mul_(self.num_images).sub_(sums[:, None] * sums)
        self.covariance.div_((255 * self.num_images) ** 2)


def checked_batches(images: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the batches that are not empty, each checked.

    Raises:
        ArgumentError: there are no images, or their type or number of channels differs.
    """
    num_channels: int | None = None
    for batch in images:
        if batch.dtype != torch.uint8 or batch.dim() != 4:
            raise ArgumentError(
                f"`images` got {str(batch.dtype).removeprefix('torch.')} "
                f"{list(batch.shape)}, expected uint8 [N, C, H, W]."
            )
        if batch.numel() == 0:
            continue
        if num_channels not in (None, batch.shape[1]):
            raise ArgumentError(
                f"An image has {batch.shape[1]} channels, but those before it have {num_channels}. "
                "Read all of them as RGB, or all as L."
            )
        num_channels = batch.shape[1]
        yield batch
    if num_channels is None:
        raise ArgumentError("There are no images to fit a normalization to.")


def _refuse_large(batch: Tensor, num_values: int) -> None:
    if num_values > MAX_WHITENED_VALUES:
        raise ArgumentError(
            f"Whitening got images of {list(batch.shape[1:])} = {num_values} values, expected "
            f"at most {MAX_WHITENED_VALUES}: the size of its matrix is the square of that. Train on "
            "smaller images, or choose normalization 'mean-std' or 'per-image'."
        )


def _std(count: int, total: int, squares: int) -> float:
    return math.sqrt(count * squares - total**2) / (255 * count)


def _sum(counts: list[int], power: int) -> int:
    return sum(level**power * count for level, count in enumerate(counts))
