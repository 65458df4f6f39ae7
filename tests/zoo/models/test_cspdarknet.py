"""CSPDarknet53: the authors' configuration, the paper's costs, and the two paths of a stage."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.models.cspdarknet import (
    STAGES,
    CrossStagePartial,
    CSPDarknet,
    StageNumbers,
    cspdarknet53,
)
from dlzoo.zoo.summary import summarize_card

#: Filters, size and stride of the first ``[convolutional]`` sections of csdarknet53-omega.cfg.
DARKNET_SECTIONS = [
    (32, 3, 1),
    (64, 3, 2),
    (64, 1, 1),
    (64, 1, 1),
    (32, 1, 1),
    (64, 3, 1),
    (64, 1, 1),
    (64, 1, 1),
    (128, 3, 2),
    (64, 1, 1),
    (64, 1, 1),
    (64, 1, 1),
    (64, 3, 1),
    (64, 1, 1),
    (64, 3, 1),
    (64, 1, 1),
    (128, 1, 1),
    (256, 3, 2),
    (128, 1, 1),
]


def test_layers_are_the_configurations_in_its_order() -> None:
    with torch.device("meta"):
        network = cspdarknet53()
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    sections = [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convs]
    assert sections[: len(DARKNET_SECTIONS)] == DARKNET_SECTIONS
    # 72 sections, and the classifier, which the configuration writes as a convolution.
    assert len(convs) == 72
    assert sum(isinstance(m, nn.Mish) for m in network.modules()) == 72


def test_costs_what_the_paper_says() -> None:
    # YOLOv4, Table 1: 27.6 million parameters; 26.0 billion multiply-adds at 512 x 512.
    card = dataclasses.replace(get_card("cspdarknet53"), input_shape=(3, 512, 512))
    summary = summarize_card(card)
    assert round(summary.num_parameters / 1e6, 1) == 27.6
    assert abs(summary.num_multiply_adds / 26.0e9 - 1) < 0.01


def test_stages_halve_the_image_and_end_as_wide_as_the_table_says() -> None:
    shapes = {
        row.path: row.output_shape for row in summarize_card(get_card("cspdarknet53")).layers
    }
    for index, numbers in enumerate(STAGES):
        size = 256 // 2 ** (index + 1)
        assert shapes[f"stages.{index}.merge.activation"] == (1, numbers.width, size, size)


def test_stage_merges_the_deep_path_and_the_direct_one() -> None:
    torch.manual_seed(1)
    stage = CrossStagePartial(
        4, StageNumbers(8, 4, 2, 2), norm=nn.BatchNorm2d, activation=nn.Mish
    ).eval()
    x_NCHW = torch.randn(2, 4, 9, 8)
    merge = stage.merge.get_submodule("conv")
    assert isinstance(merge, nn.Conv2d)
    with torch.no_grad():
        halved_NCHW = stage.downsample(x_NCHW)
        merge.weight[:, :4] = 0
        # The last half of what is merged is the direct path, which passes the blocks by.
        expected_NCHW = nn.functional.conv2d(stage.direct(halved_NCHW), merge.weight[:, 4:])
        y_NCHW = stage(x_NCHW)
        norm, activation = (stage.merge.get_submodule(n) for n in ("norm", "activation"))
        torch.testing.assert_close(
            y_NCHW, activation(norm(expected_NCHW)), rtol=1e-5, atol=1e-6
        )
        assert y_NCHW.shape == (2, 8, 5, 4)
        nn.init.zeros_(stage.blocks[0].conv2.norm.weight)
        assert torch.equal(stage(x_NCHW), y_NCHW)


def small() -> CSPDarknet:
    torch.manual_seed(0)
    return CSPDarknet(
        (StageNumbers(8, 8, 4, 1), StageNumbers(16, 8, 8, 1)),
        num_classes=4,
        norm=nn.BatchNorm2d,
        activation=nn.Mish,
    ).eval()


@pytest.mark.parametrize("size", [(1, 1), (33, 47)])
def test_takes_any_size_from_the_cards_smallest_on(size: tuple[int, int]) -> None:
    assert get_card("cspdarknet53").min_image_size == (1, 1)
    assert small()(torch.zeros(2, 3, *size)).shape == (2, 4)


def test_traces_with_dynamic_batch_and_image_size() -> None:
    network = small()
    dim = torch.export.Dim
    axes = {0: dim("batch"), 2: dim("height", max=512), 3: dim("width", max=512)}
    program = torch.export.export(
        network,
        (torch.zeros(2, 3, 64, 64),),
        dynamic_shapes=(axes,),
        # As torch.onnx does: sizes are checked when the program runs, and not ruled out now.
        prefer_deferred_runtime_asserts_over_guards=True,
    ).module()
    x_NCHW = torch.randn(3, 3, 33, 47, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(program(x_NCHW), network(x_NCHW), rtol=1e-5, atol=1e-6)
