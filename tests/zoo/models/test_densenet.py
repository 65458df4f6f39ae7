"""DenseNet: the paper's table, features that are passed on, and the published file's keys."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.models.densenet import (
    DenseBlock,
    DenseNet,
    densenet121,
    remap_legacy_keys,
)
from dlzoo.zoo.summary import summarize_card


def small() -> DenseNet:
    return DenseNet(
        (1, 2, 1, 1), num_classes=4, dropout=0.0, norm=nn.BatchNorm2d, activation=nn.ReLU
    ).eval()


def test_121_layers() -> None:
    with torch.device("meta"):
        network = densenet121()
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules()) == 121


def test_blocks_and_transitions_have_the_sizes_of_table_1() -> None:
    shapes = {
        row.path.removeprefix("features."): row.output_shape
        for row in summarize_card(get_card("densenet121")).layers
    }
    assert shapes["pool0"] == (1, 64, 56, 56)
    assert shapes["denseblock1"] == (1, 256, 56, 56)
    assert shapes["transition1.pool"] == (1, 128, 28, 28)
    assert shapes["denseblock2"] == (1, 512, 28, 28)
    assert shapes["transition2.pool"] == (1, 256, 14, 14)
    assert shapes["denseblock3"] == (1, 1024, 14, 14)
    assert shapes["transition3.pool"] == (1, 512, 7, 7)
    assert shapes["denseblock4"] == (1, 1024, 7, 7)


def test_block_passes_on_all_it_was_given() -> None:
    block = DenseBlock(5, 3, dropout=0.0, norm=nn.BatchNorm2d, activation=nn.ReLU).eval()
    x_NCHW = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(1))
    y_NCHW = block(x_NCHW)
    assert y_NCHW.shape == (2, 5 + 3 * 32, 4, 4)
    assert torch.equal(y_NCHW[:, :5], x_NCHW)
    # The second layer reads the input and what the first has added, and so on.
    second = block.get_submodule("denselayer2")
    assert torch.equal(y_NCHW[:, 37:69], second(y_NCHW[:, :37]))


def test_published_keys_are_renamed() -> None:
    network = small()
    today = network.state_dict()
    published = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", key): value
        for key, value in today.items()
    }
    assert "features.denseblock2.denselayer2.norm.1.running_mean" in published
    renamed = remap_legacy_keys(published)
    assert list(renamed) == list(today)
    assert all(renamed[key] is today[key] for key in today)
    assert remap_legacy_keys(today) == today
    assert get_card("densenet121").remap_keys is remap_legacy_keys


def test_smallest_image_is_the_cards() -> None:
    assert get_card("densenet121").min_image_size == (29, 29)
    network = small()
    assert network(torch.zeros(1, 3, 29, 29)).shape == (1, 4)
    with pytest.raises(RuntimeError, match="too small"):
        network(torch.zeros(1, 3, 28, 29))


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(4)
    block = DenseBlock(4, 1, dropout=0.5, norm=nn.BatchNorm2d, activation=nn.ReLU)
    x_NCHW = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    dropped = float((block.train()(x_NCHW)[:, 4:] == 0).float().mean())
    assert 0.45 < dropped < 0.55
    assert float((block.eval()(x_NCHW)[:, 4:] == 0).float().mean()) < 0.01


def test_norm_and_activation_are_arguments() -> None:
    with torch.device("meta"):
        network = densenet121(norm="group_norm", activation="swish")
    kinds = {type(module) for module in network.modules()}
    assert {nn.GroupNorm, nn.SiLU} <= kinds
    assert not {nn.BatchNorm2d, nn.ReLU} & kinds


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
