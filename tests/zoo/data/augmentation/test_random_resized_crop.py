"""Random resized crops against torch's own resize, and the law of their windows."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from scipy import stats

from dlzoo.zoo.data.augmentation.random_resized_crop import RandomResizedCrop
from dlzoo.zoo.data.sample_draws import SampleDraws


def draws(count: int) -> SampleDraws:
    return SampleDraws(3, 1, range(count))


@pytest.mark.parametrize("shape", [(20, 1, 28, 28), (20, 3, 32, 48)])
def test_is_torchs_resize_of_the_part(shape: tuple[int, ...]) -> None:
    n, _, height, width = shape
    x = torch.from_numpy(np.random.default_rng(0).random(shape, dtype=np.float32))
    crop = RandomResizedCrop()
    out = crop.change(x, draws(n))
    window = crop.windows(draws(n))
    for k in range(n):
        top, left, h, w = window(k, height, width)
        part = x[k : k + 1, :, top : top + h, left : left + w].double()
        expected = F.interpolate(part, (height, width), mode="bilinear", align_corners=False)
        # float32 positions on a canvas of 64 are off by 4e-6 pixels at most, along both axes.
        assert (out[k] - expected[0]).abs().max() < 1e-5


def test_the_whole_image_stays_as_it_is() -> None:
    x = torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    out = RandomResizedCrop(scale=(1, 1), ratio=(1.5, 1.5)).change(x, draws(4))
    assert torch.equal(out, x)


def test_windows_follow_their_law() -> None:
    count, height, width = 4000, 300, 400
    window = RandomResizedCrop(scale=(0.1, 0.4)).windows(draws(count))
    parts = np.array([window(k, height, width) for k in range(count)])
    top, left, h, w = parts.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()
    # At up to 0.4 of the area every shape fits. Sides are rounded to whole pixels: 1 in 95.
    areas = stats.kstest(h * w / (height * width), stats.uniform(0.1, 0.3).cdf)
    log_ratios = stats.kstest(
        np.log(w / h), stats.uniform(math.log(3 / 4), 2 * math.log(4 / 3)).cdf
    )
    places = stats.kstest((top + 0.5) / (height - h + 1), "uniform")
    assert min(areas.pvalue, log_ratios.pvalue, places.pvalue) > 1e-4


def test_where_no_shape_fits_the_largest_part_of_the_middle_is_taken() -> None:
    window = RandomResizedCrop(scale=(1, 1)).windows(draws(1))
    # 4:1 cannot hold all of its area at 4/3.
    assert window(0, 100, 400) == (0, 133, 100, 133)
    assert window(0, 400, 100) == (133, 0, 133, 100)
    assert window(0, 1, 1) == (0, 0, 1, 1)


def test_originals_are_whole_where_the_draw_says_no() -> None:
    window = RandomResizedCrop(probability=0.5, scale=(0.1, 0.5)).windows(draws(400))
    num_whole = sum(window(k, 50, 60) == (0, 0, 50, 60) for k in range(400))
    assert abs(num_whole - 200) < 5 * 10


def test_more_than_the_whole_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"a part of 1\.2 of the area is more than the"):
        RandomResizedCrop(scale=(0.5, 1.2))


def test_every_place_is_as_likely() -> None:
    # 4 x 4 of 6 x 6: three places along each axis, the first and the last among them.
    window = RandomResizedCrop(scale=(4 / 9, 4 / 9), ratio=(1, 1)).windows(draws(3000))
    places = [window(k, 6, 6) for k in range(3000)]
    assert {place[2:] for place in places} == {(4, 4)}
    counts = np.bincount([3 * top + left for top, left, _, _ in places], minlength=9)
    assert len(counts) == 9 and stats.chisquare(counts).pvalue > 1e-4
