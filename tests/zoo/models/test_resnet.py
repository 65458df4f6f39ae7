"""ResNet: the paper's table, the shortcut, and its arguments."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.layers.layer_registry import resolve_layer
from dlzoo.zoo.models.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet50_gn,
    resnet101,
    resnet152,
)
from dlzoo.zoo.summary import summarize_card

BUILDERS = {18: resnet18, 34: resnet34, 50: resnet50, 101: resnet101, 152: resnet152}


def on_meta(depth: int) -> nn.Module:
    with torch.device("meta"):
        return BUILDERS[depth]()


def small(norm: str) -> ResNet:
    return ResNet(
        BasicBlock,
        (1, 1, 1, 1),
        num_classes=4,
        norm=resolve_layer(norm, "norm"),
        activation=nn.ReLU,
    )


@pytest.mark.parametrize("depth", BUILDERS)
def test_depth_counts_the_layers_along_the_longest_path(depth: int) -> None:
    layers = [
        path
        for path, module in on_meta(depth).named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in path
    ]
    assert len(layers) == depth


@pytest.mark.parametrize(("name", "widths"), [("resnet34", 1), ("resnet101", 4)])
def test_stages_have_the_sizes_of_table_1(name: str, widths: int) -> None:
    shapes = {row.path: row.output_shape for row in summarize_card(get_card(name)).layers}
    assert shapes["conv1"] == (1, 64, 112, 112)
    for stage, (width, size) in enumerate([(64, 56), (128, 28), (256, 14), (512, 7)], start=1):
        assert shapes[f"layer{stage}.0"] == (1, width * widths, size, size)
    assert shapes["fc"] == (1, 1000)


def test_bottleneck_halves_in_its_3x3_convolution() -> None:
    strides = [
        (conv.kernel_size[0], conv.stride[0])
        for path, conv in on_meta(50).named_modules()
        if isinstance(conv, nn.Conv2d) and path.startswith("layer2.0.conv")
    ]
    assert strides == [(1, 1), (3, 2), (1, 1)]


@pytest.mark.parametrize("block_type", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("stride", [1, 2])
def test_block_adds_its_shortcut(
    block_type: type[BasicBlock] | type[Bottleneck], stride: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    block = block_type(8 * block_type.expansion, 8, stride, nn.BatchNorm2d, nn.ReLU).eval()
    x_NCHW = torch.randn(2, 8 * block_type.expansion, 7, 6, generator=generator)
    assert (block.downsample is None) == (stride == 1)
    shortcut_NCHW = x_NCHW if block.downsample is None else block.downsample(x_NCHW)
    assert not torch.equal(block(x_NCHW), shortcut_NCHW.relu())
    # Without the residual nothing but the shortcut is left.
    last_norm = block.bn2 if isinstance(block, BasicBlock) else block.bn3
    nn.init.zeros_(last_norm.weight)
    assert torch.equal(block(x_NCHW), shortcut_NCHW.relu())


def test_norm_and_activation_are_arguments() -> None:
    network = resnet18(num_classes=7, norm="group_norm", activation="mish")
    kinds = {type(module) for module in network.modules()}
    assert {nn.GroupNorm, nn.Mish} <= kinds
    assert not {nn.BatchNorm2d, nn.ReLU} & kinds
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_a_norm_that_is_none_is_refused() -> None:
    with pytest.raises(
        ArgumentError, match="'mish' is of kind 'activation', expected kind 'norm'"
    ):
        resnet18(norm="mish")


def test_group_norm_variant_has_no_batch_norm() -> None:
    with torch.device("meta"):
        norms = [m for m in resnet50_gn().modules() if isinstance(m, nn.GroupNorm)]
        kinds = {type(m) for m in resnet50_gn().modules()}
    assert len(norms) == 53
    assert {norm.num_groups for norm in norms} == {32}
    assert nn.BatchNorm2d not in kinds


@pytest.mark.parametrize(("norm", "looks"), [("group_norm", False), ("batch_norm", True)])
def test_only_batch_norm_looks_at_the_batch(norm: str, looks: bool) -> None:
    torch.manual_seed(2)
    network = small(norm).train()
    images_NCHW = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        difference_1K = network(images_NCHW)[:1] - network(images_NCHW[:1])
    assert (float(difference_1K.abs().max()) > 1e-4) == looks


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ArgumentError, match="got 64 channels in 24 groups"):
        resnet50_gn(num_groups=24)


@pytest.mark.parametrize("size", [(1, 1), (33, 47)])
def test_takes_any_size_from_the_cards_smallest_on(size: tuple[int, int]) -> None:
    assert get_card("resnet18").min_image_size == (1, 1)
    assert small("batch_norm").eval()(torch.zeros(2, 3, *size)).shape == (2, 4)


def test_newer_weights_bring_their_own_preprocessing() -> None:
    weights = get_card("resnet50").published_weights("imagenet_v2")
    assert weights is not None and weights.preprocessing is not None
    assert weights.preprocessing.resize_size == 232
    assert weights.url.endswith(f"resnet50-{weights.sha256}.pth")


def test_traces_with_dynamic_batch_and_image_size() -> None:
    network = small("batch_norm").eval()
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
