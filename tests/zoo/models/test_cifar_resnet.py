"""ResNet for 32 x 32 pixels: the paper's table, its parameters, and the shortcut."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.layers.norm import group_norm
from dlzoo.zoo.models.cifar_resnet import CifarResNet, ZeroPaddedShortcut
from dlzoo.zoo.summary import summarize_card

#: Table 6: millions of parameters.
MILLIONS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85}


def parameters_by_hand(n: int) -> int:
    """3x3 kernels without biases, a scale and a shift for each map, and 64 x 10 + 10."""
    first = 3 * 16 * 9
    kernels = (
        2 * n * 16 * 16 * 9
        + (16 * 32 + (2 * n - 1) * 32 * 32) * 9
        + (32 * 64 + (2 * n - 1) * 64 * 64) * 9
    )
    norms = 2 * 16 + 2 * n * 2 * (16 + 32 + 64)
    return first + kernels + norms + 64 * 10 + 10


@pytest.mark.parametrize("depth", MILLIONS)
def test_parameters_are_table_6s(depth: int) -> None:
    card = get_card(f"resnet{depth}")
    assert card.num_parameters == parameters_by_hand((depth - 2) // 6)
    assert round(card.num_parameters / 1e6, 2) == MILLIONS[depth]


@pytest.mark.parametrize("depth", MILLIONS)
def test_depth_counts_the_layers_with_weights(depth: int) -> None:
    with torch.device("meta"):
        network = get_card(f"resnet{depth}").builder()
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


def test_stages_have_the_sizes_of_section_4_2() -> None:
    shapes = {
        row.path: row.output_shape for row in summarize_card(get_card("resnet20")).layers
    }
    assert shapes["conv1"] == (1, 16, 32, 32)
    for stage, (width, size) in enumerate([(16, 32), (32, 16), (64, 8)], start=1):
        assert shapes[f"layer{stage}.2"] == (1, width, size, size)
    assert shapes["fc"] == (1, 10)


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_shortcut_takes_every_other_pixel_and_adds_zeros(size: tuple[int, int]) -> None:
    x_NCHW = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    y_NCHW = ZeroPaddedShortcut(3, 8, 2)(x_NCHW)
    height, width = (-(-pixels // 2) for pixels in size)
    assert y_NCHW.shape == (2, 8, height, width)
    for i in range(height):
        for j in range(width):
            assert torch.equal(y_NCHW[:, :3, i, j], x_NCHW[:, :, 2 * i, 2 * j])
    assert not y_NCHW[:, 3:].any()


def test_only_blocks_that_change_the_shape_have_a_shortcut() -> None:
    with torch.device("meta"):
        network = get_card("resnet32").builder()
    names = [n for n, m in network.named_modules() if isinstance(m, ZeroPaddedShortcut)]
    assert names == ["layer2.0.downsample", "layer3.0.downsample"]


def test_norm_activation_and_channels_are_arguments() -> None:
    network = get_card("resnet20").builder(
        num_classes=7,
        num_channels=1,
        norm=partial(group_norm, num_groups=8),
        activation="mish",
    )
    assert isinstance(network, CifarResNet)
    kinds = {type(module) for module in network.modules()}
    assert {nn.GroupNorm, nn.Mish} <= kinds
    assert not {nn.BatchNorm2d, nn.ReLU} & kinds
    assert network.eval()(torch.zeros(1, 1, 28, 28)).shape == (1, 7)
