"""Sums over all pixels: exact, whatever the batches are."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlzoo.errors import ArgumentError
from dlzoo.zoo.data.pixel_statistics import ChannelHistogram, PixelCovariance


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    )


def test_numpys_numbers() -> None:
    images = pixels(300, 3, 7, 9)
    images[:, 1] //= 3
    values = images.double().numpy() / 255
    for statistics in (ChannelHistogram([images]), PixelCovariance([images])):
        mean, std = (
            (statistics.mean, statistics.std)
            if isinstance(statistics, ChannelHistogram)
            else (statistics.channel_mean, statistics.channel_std)
        )
        assert np.abs(np.array(mean) - values.mean((0, 2, 3))).max() < 1e-14
        assert np.abs(np.array(std) - values.std((0, 2, 3))).max() < 1e-14
    rows = values.reshape(300, -1)
    sums = PixelCovariance([images])
    assert np.abs(sums.mean.numpy() - rows.mean(0)).max() < 1e-14
    expected = np.cov(rows, rowvar=False, bias=True)
    assert np.abs(sums.covariance.numpy() - expected).max() < 1e-14


def test_bounds() -> None:
    images = pixels(20, 2, 3, 3)
    images[:, 1] = images[:, 1].clamp(51, 204)
    images[0, 1, 0, :2] = torch.tensor([51, 204])
    assert ChannelHistogram([images]).bounds[1] == (51 / 255, 204 / 255)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 300), st.lists(st.integers(0, 300), max_size=4), st.integers(1, 3))
def test_neither_batches_nor_order_nor_threads_matter(
    count: int, cuts: list[int], num_threads: int
) -> None:
    images = pixels(count, 2, 3, 4, seed=count)
    whole = PixelCovariance([images]), ChannelHistogram([images])
    parts = [
        images[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), None], strict=True)
    ]
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        again = PixelCovariance(parts[::-1]), ChannelHistogram(parts[::-1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(again[0].covariance, whole[0].covariance)
    assert torch.equal(again[0].mean, whole[0].mean)
    assert again[1].counts == whole[1].counts
    assert (again[0].channel_mean, again[0].channel_std) == (again[1].mean, again[1].std)


def test_sums_of_white_images_are_still_exact() -> None:
    # The largest products that float32 has to hold.
    images = torch.full((513, 1, 4, 4), 255, dtype=torch.uint8)
    images[0, 0, 0, 0] = 254
    sums = PixelCovariance([images])
    n = 513
    assert sums.covariance[0, 0] == (n * (n - 1) - (n - 1) ** 2) / (255**2 * n**2)
    assert (sums.covariance[1:, 1:] == 0).all()


@pytest.mark.parametrize("kind", [ChannelHistogram, PixelCovariance])
def test_unfit_images_are_refused(kind: type) -> None:
    for images, message in (
        ([], "There are no images to fit a normalization to."),
        ([pixels(0, 3, 2, 2)], "There are no images"),
        (
            [torch.zeros(2, 3, 4, 4)],
            "`images` got float32 [2, 3, 4, 4], expected uint8 [N, C, H, W].",
        ),
        (
            [pixels(2, 3, 4, 4), pixels(2, 1, 4, 4)],
            "has 1 channels, but those before it have 3. Read all",
        ),
    ):
        with pytest.raises(ArgumentError, match=re.escape(message)):
            kind(images)


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(
        ArgumentError, match="An image has 27 values, but those before it have 48: "
    ):
        PixelCovariance([pixels(2, 3, 4, 4), pixels(2, 3, 3, 3)])
