"""MobileNetV2: the paper's table, thin shortcuts, and widths that are multiples of 8."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.models.mobilenet import InvertedResidual, mobilenet_v2, round_to_multiple
from dlzoo.zoo.summary import summarize_card

#: Table 2: output channels and size of each line, the repeated blocks of a line once.
TABLE_2 = [
    (32, 112),
    (16, 112),
    (24, 56),
    (32, 28),
    (64, 14),
    (96, 14),
    (160, 7),
    (320, 7),
    (1280, 7),
]


def on_meta(**arguments: float) -> nn.Module:
    with torch.device("meta"):
        return mobilenet_v2(**arguments)  # type: ignore[arg-type]


def test_lines_have_the_sizes_of_table_2() -> None:
    network = on_meta()
    x_NCHW = torch.empty(1, 3, 224, 224, device="meta")
    shapes = []
    for block in network.get_submodule("features").children():
        x_NCHW = block(x_NCHW)
        shapes.append((x_NCHW.shape[1], x_NCHW.shape[2]))
    assert len(shapes) == 1 + 17 + 1
    assert list(dict.fromkeys(shapes)) == TABLE_2


def test_costs_what_the_paper_says() -> None:
    # Table 4: 3.4 million parameters and 300 million multiply-adds.
    summary = summarize_card(get_card("mobilenet_v2"))
    assert abs(summary.num_multiply_adds / 300e6 - 1) < 0.01
    assert abs(summary.num_parameters / 3.4e6 - 1) < 0.04


def test_shortcuts_join_equal_shapes_only() -> None:
    blocks = [m for m in on_meta().modules() if isinstance(m, InvertedResidual)]
    # Every block but the first of each of the seven lines.
    assert sum(block.has_shortcut for block in blocks) == 17 - 7


def test_block_ends_without_an_activation_and_adds_its_input() -> None:
    block = InvertedResidual(
        8, 8, stride=1, expansion=6, norm=nn.BatchNorm2d, activation=nn.ReLU6
    ).eval()
    assert isinstance(block.conv[-1], nn.BatchNorm2d)
    x_NCHW = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(1))
    y_NCHW = block(x_NCHW)
    assert bool((y_NCHW < 0).any())
    assert torch.equal(y_NCHW, x_NCHW + block.conv(x_NCHW))


def test_strided_block_has_no_shortcut() -> None:
    block = InvertedResidual(
        8, 8, stride=2, expansion=6, norm=nn.BatchNorm2d, activation=nn.ReLU6
    ).eval()
    x_NCHW = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(block(x_NCHW), block.conv(x_NCHW))
    assert block(x_NCHW).shape == (2, 8, 3, 3)


def test_filters_each_wide_channel_alone() -> None:
    block = on_meta().get_submodule("features.2")
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.groups) for c in convs] == [
        (16, 96, 1),
        (96, 96, 96),
        (96, 24, 1),
    ]


@given(st.floats(min_value=1, max_value=4096))
def test_rounding_stays_near_and_never_loses_a_tenth(width: float) -> None:
    rounded = round_to_multiple(width)
    assert rounded % 8 == 0
    assert rounded >= 0.9 * width
    assert rounded - width <= 8


def test_width_multiplier_keeps_the_last_convolution() -> None:
    narrow = on_meta(width_multiplier=0.5)
    assert narrow.get_submodule("classifier.1").in_features == 1280
    assert narrow.get_submodule("features.0.0").out_channels == 16
    wide = on_meta(width_multiplier=1.4)
    assert wide.get_submodule("classifier.1").in_features == 1792


def test_activation_is_an_argument() -> None:
    network = mobilenet_v2(num_classes=3, width_multiplier=0.35, activation="hardswish")
    kinds = {type(module) for module in network.modules()}
    assert nn.Hardswish in kinds and nn.ReLU6 not in kinds
    assert network.eval()(torch.zeros(2, 3, 1, 1)).shape == (2, 3)


@pytest.mark.slow
def test_traces_with_dynamic_batch_and_image_size() -> None:
    network = mobilenet_v2(num_classes=4, width_multiplier=0.35).eval()
    dim = torch.export.Dim
    axes = {0: dim("batch"), 2: dim("height", max=512), 3: dim("width", max=512)}
    program = torch.export.export(
        network,
        (torch.zeros(2, 3, 64, 64),),
        dynamic_shapes=(axes,),
        # As torch.onnx does: sizes are checked when the program runs, and not ruled out now.
        prefer_deferred_runtime_asserts_over_guards=True,
    ).module()
    x_NCHW = torch.randn(3, 3, 33, 70, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(program(x_NCHW), network(x_NCHW), rtol=1e-5, atol=1e-6)
