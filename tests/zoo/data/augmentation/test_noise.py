"""Noise by its moments, Cutout by its area."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from dlzoo.zoo.data.augmentation.noise import Cutout, GaussianNoise
from dlzoo.zoo.data.sample_draws import SampleDraws


def draws(count: int) -> SampleDraws:
    return SampleDraws(5, 2, range(count))


def test_moments_of_the_noise() -> None:
    # From the middle grey, 10 standard deviations away from black and white.
    x = torch.full((40, 3, 32, 32), 0.5)
    noise = (GaussianNoise(std=0.05).change(x, draws(40)) - x).double() / 0.05
    count = noise.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = abs((noise**power).mean().item() - moment)
        assert error < 5 * math.sqrt(variance / count), power
    # No two pixels, channels or samples share it.
    flat = noise.flatten(1)
    assert abs((flat[:, :-1] * flat[:, 1:]).mean().item()) < 5 / math.sqrt(count)
    assert abs((noise[:, 0] * noise[:, 1]).mean().item()) < 5 / math.sqrt(count / 3)
    assert abs((noise[:-1] * noise[1:]).mean().item()) < 5 / math.sqrt(count)


def test_noise_stays_between_black_and_white() -> None:
    x = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)).round()
    out = GaussianNoise(std=0.5).change(x, draws(4))
    assert out.min() == 0 and out.max() == 1


@pytest.mark.parametrize("size", [1, 4, 5, 40])
def test_a_square_is_blotted_out(size: int) -> None:
    height, width, count = 12, 15, 300
    x = torch.full((count, 2, height, width), 0.5)
    out = Cutout(size=size).change(x, draws(count))
    rows = draws(count).integers("row", 0, height)
    columns = draws(count).integers("column", 0, width)
    for k, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        expected = np.full((height, width), 0.5, np.float32)
        top, left = row - size // 2, column - size // 2
        expected[max(top, 0) : top + size, max(left, 0) : left + size] = 0
        assert np.array_equal(out[k, 0].numpy(), expected)
        assert torch.equal(out[k, 0], out[k, 1])
    areas = (out[:, 0] == 0).sum((1, 2))
    assert areas.max() == min(size, height) * min(size, width) and areas.min() >= 1
    # The middle is uniform.
    assert stats.chisquare(np.bincount(rows.numpy(), minlength=height)).pvalue > 1e-4


def test_noise_fills_the_square_and_nothing_else() -> None:
    x = torch.full((200, 3, 16, 16), 2.0)  # no noise is 2
    zeros = Cutout(size=8).change(x, draws(200)) == 0
    out = Cutout(size=8, fill="noise").change(x, draws(200))
    assert torch.equal(out != 2, zeros)
    assert stats.kstest(out[zeros].double().numpy(), "uniform").pvalue > 1e-4
