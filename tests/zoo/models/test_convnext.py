"""ConvNeXt: the paper's table, layer scale, and stochastic depth."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.models.convnext import (
    ConvNeXt,
    ConvNeXtBlock,
    StageNumbers,
    StochasticDepth,
    convnext_tiny,
)
from dlzoo.zoo.summary import summarize_card


def small() -> ConvNeXt:
    torch.manual_seed(0)
    return ConvNeXt(
        (StageNumbers(4, 1), StageNumbers(6, 1), StageNumbers(8, 1), StageNumbers(10, 1)),
        num_classes=4,
        layer_scale=0.5,
        stochastic_depth=0.0,
        activation=nn.GELU,
    ).eval()


def test_stages_have_the_sizes_of_table_9() -> None:
    with torch.device("meta"):
        network = convnext_tiny()
    stages = list(network.get_submodule("features").children())
    assert [len(list(stage.children())) for stage in stages[1::2]] == [3, 3, 9, 3]
    x_NCHW = torch.empty(1, 3, 224, 224, device="meta")
    shapes = []
    for stage in stages:
        x_NCHW = stage(x_NCHW)
        shapes.append(tuple(x_NCHW.shape[1:]))
    assert shapes[1::2] == [(96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7)]


def test_costs_what_the_paper_says() -> None:
    # Table 1: 29 million parameters, 4.5 billion multiply-adds.
    summary = summarize_card(get_card("convnext_tiny"))
    assert round(summary.num_parameters / 1e6) == 29
    assert round(summary.num_multiply_adds / 1e9, 1) == 4.5


def test_layer_scale_weighs_the_residual() -> None:
    torch.manual_seed(1)
    block = ConvNeXtBlock(6, layer_scale=1e-6, stochastic_depth=0.0, activation=nn.GELU)
    assert torch.equal(block.layer_scale, torch.full((6, 1, 1), 1e-6))
    x_NCHW = torch.randn(2, 6, 9, 9)
    with torch.no_grad():
        block.layer_scale.zero_()
        assert torch.equal(block(x_NCHW), x_NCHW)
        block.layer_scale[2] = 1
        change_NCHW = block(x_NCHW) - x_NCHW
    assert float(change_NCHW[:, 2].abs().max()) > 1e-3
    assert not change_NCHW[:, [0, 1, 3, 4, 5]].any()


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(2)
    layer = StochasticDepth(0.25)
    x_NCHW = torch.ones(4000, 2, 2, 1)
    assert layer.eval()(x_NCHW) is x_NCHW
    y_NCHW = layer.train()(x_NCHW)
    per_sample = y_NCHW.flatten(1)
    assert torch.equal(per_sample.amin(1), per_sample.amax(1))
    assert sorted(set(per_sample[:, 0].tolist())) == pytest.approx([0, 4 / 3], rel=1e-6)
    # The mean of 4000 draws has a standard deviation of 0.009.
    assert abs(float(y_NCHW.mean()) - 1) < 0.04


def test_stochastic_depth_rises_linearly() -> None:
    with torch.device("meta"):
        network = convnext_tiny(stochastic_depth=0.17)
    probabilities = [
        m.probability for m in network.modules() if isinstance(m, StochasticDepth)
    ]
    assert probabilities == pytest.approx([0.01 * index for index in range(18)], abs=1e-7)


def test_smallest_image_is_the_cards() -> None:
    assert get_card("convnext_tiny").min_image_size == (32, 32)
    network = small()
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        network(torch.zeros(1, 3, 31, 32))


def test_activation_is_an_argument() -> None:
    with torch.device("meta"):
        network = convnext_tiny(activation="gelu_tanh")
    gelus = [m for m in network.modules() if isinstance(m, nn.GELU)]
    assert len(gelus) == 18
    assert {gelu.approximate for gelu in gelus} == {"tanh"}


class OperatorNames(TorchDispatchMode):
    """Notes the name of every operator that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def test_pools_without_strides() -> None:
    # as_strided can only be exported as Range and Gather.
    with torch.no_grad(), OperatorNames() as operators:
        small()(torch.zeros(1, 3, 64, 64))
    assert "aten.mean.dim" in operators.names
    assert not any("as_strided" in name for name in operators.names)


def test_traces_with_dynamic_batch_and_image_size() -> None:
    network = small()
    dim = torch.export.Dim
    # Below 64 pixels the last stage has one, and torch.export treats sizes of one apart.
    axes = {
        0: dim("batch"),
        2: dim("height", min=64, max=512),
        3: dim("width", min=64, max=512),
    }
    program = torch.export.export(
        network,
        (torch.zeros(2, 3, 96, 96),),
        dynamic_shapes=(axes,),
        # As torch.onnx does: sizes are checked when the program runs, and not ruled out now.
        prefer_deferred_runtime_asserts_over_guards=True,
    ).module()
    x_NCHW = torch.randn(3, 3, 64, 111, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(program(x_NCHW), network(x_NCHW), rtol=1e-5, atol=1e-6)
