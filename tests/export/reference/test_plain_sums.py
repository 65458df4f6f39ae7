"""PyTorch's float32 with sums in order: right, in every order, and as noisy as a runtime's."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dlzoo
from dlzoo.export.reference.float32_ways import float32_runs
from dlzoo.export.reference.plain_sums import PlainSums


@pytest.mark.parametrize("axes", [(2, 3), (1,), (-1,), (0, 2), None])
@pytest.mark.parametrize("keepdim", [False, True])
def test_mean_as_product_is_the_mean(axes: tuple[int, ...] | None, keepdim: bool) -> None:
    x = torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last)
    with PlainSums():
        got = x.mean(axes, keepdim=keepdim)  # type: ignore[call-overload]
    expected = x.double().mean(axes, keepdim=keepdim)  # type: ignore[call-overload]
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) < 1e-6


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("shape", [(5, 7), (1, 7), (2, 3, 7), (0, 7)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_products_are_the_products(order: int, shape: tuple[int, ...], has_bias: bool) -> None:
    layer = nn.Linear(shape[-1], 4, bias=has_bias)
    x = torch.randn(shape)
    with torch.no_grad(), PlainSums(order):
        got = layer(x)
    expected = layer.double()(x.double())
    assert got.shape == expected.shape
    assert torch.allclose(got.double(), expected, atol=1e-6)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(3, 4, (2, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2), bias=False),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.ConvTranspose2d(3, 2, 3, stride=2),
        nn.Conv1d(3, 2, 3),
    ],
    ids=str,
)
def test_convolutions_are_the_convolutions(layer: nn.Module, order: int) -> None:
    channels = 4 if getattr(layer, "groups", 1) == 2 else 3
    x = torch.randn(2, channels, 9, *() if isinstance(layer, nn.Conv1d) else (8,))
    with torch.no_grad(), PlainSums(order):
        got = layer(x)
    expected = copy.deepcopy(layer).double()(x.double())
    assert got.shape == expected.shape
    assert torch.allclose(got.double(), expected, atol=1e-5)


@pytest.mark.parametrize(("num_summed", "panel"), [(300, 300), (2**14 + 300, 256)])
def test_a_product_is_summed_in_order(num_summed: int, panel: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, num_summed, generator=generator)
    b = torch.rand(num_summed, 3, generator=generator)
    one_by_one = torch.zeros(2, 3)
    for start in range(0, num_summed, panel):
        sum_of_panel = torch.zeros(2, 3)
        for k in range(start, min(start + panel, num_summed)):
            sum_of_panel += a[:, k, None] * b[None, k]
        one_by_one += sum_of_panel
    with PlainSums():
        in_order = a @ b
    with PlainSums(1):
        drawn = a @ b
    exact = a.double() @ b.double()
    # To a fused multiply-add's half unit a step: the same additions, in the same order.
    assert float((in_order - one_by_one).abs().max()) < float((in_order - exact).abs().max())
    assert not torch.equal(in_order, drawn)


def errors_of(network: nn.Module, x: Tensor) -> list[float]:
    with torch.no_grad():
        exact = network.double()(x.double())
        network.float()
        runs = list(float32_runs(network, {"x": x}, ["y"], every_way=True))
    return [float((torch.from_numpy(run["y"]) - exact).nan_to_num().norm()) for run in runs]


def mean_of(*, num_channels: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, num_channels, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()


def test_noise_of_a_mean_of_equal_numbers_is_that_of_a_plain_sum() -> None:
    # Behind an image of zeros a tree of additions has nearly no error; a runtime's row of them has.
    class MeanOfTokens(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[0](x).flatten(2).mean(2)

    tokens = MeanOfTokens(nn.Conv2d(3, 64, 1)).eval()
    errors = errors_of(tokens, torch.zeros(2, 3, 64, 64))
    assert max(errors) > 2 * errors[0]
    # Over two axes of 300 that row would have 300 times PyTorch's error. The graph has steps.
    errors = errors_of(mean_of(num_channels=64), torch.zeros(2, 3, 300, 300))
    assert max(errors) < 12 * errors[0]


def test_a_mean_over_a_large_image_passes(tmp_path: Path) -> None:
    bundle = dlzoo.export_model(
        mean_of(num_channels=128), tmp_path / "mean", input_shape=(3, 300, 300)
    )
    report = dlzoo.verify(bundle.path)
    worst = max(result.rho2 for result in report.candidates if result.rho2 is not None)
    assert report and worst < 2, worst


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_clean_layer_with_few_outputs_passes(seed: int, tmp_path: Path) -> None:
    # Three of four of these failed, at rho2 up to 5.2, where only PyTorch's own sums counted.
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    bundle = dlzoo.export_model(network, tmp_path / "linear", input_shape=(3, 8, 8), seed=seed)
    report = dlzoo.verify(bundle.path)
    worst = max(result.rho2 for result in report.candidates if result.rho2 is not None)
    assert report and worst < 2, worst
