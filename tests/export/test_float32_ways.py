"""PyTorch's float32 in other orders of summation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlzoo.export.float32_ways import _MeansAsProducts, float32_runs


@pytest.mark.parametrize("axes", [(2, 3), (1,), (-1,), (0, 2), None])
@pytest.mark.parametrize("keepdim", [False, True])
def test_mean_as_product_is_the_mean(axes: tuple[int, ...] | None, keepdim: bool) -> None:
    x = torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last)
    with _MeansAsProducts():
        got = x.mean(axes, keepdim=keepdim)  # type: ignore[call-overload]
    expected = x.double().mean(axes, keepdim=keepdim)  # type: ignore[call-overload]
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) < 1e-6


def test_noise_of_a_mean_of_equal_numbers_is_that_of_a_plain_sum() -> None:
    # Behind an image of zeros a tree of additions has nearly no error; a runtime's row of them has.
    network = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    x = torch.zeros(2, 3, 64, 64)
    with torch.no_grad():
        exact = network.double()(x.double())
        network.float()
        runs = list(float32_runs(network, {"x": x}, ["y"], every_way=True))
    errors = [float((torch.from_numpy(run["y"]) - exact).nan_to_num().norm()) for run in runs]
    assert max(errors) > 2 * errors[0]
