"""Graphs whose image height and width are open hold at other sizes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.export.graph.onnx_graph import OnnxGraph
from tests.support.exported_graphs import SMALL_ERROR, run_graph

Export = Callable[..., OnnxGraph]
OPEN_IMAGE = {"x": {0: "batch", 2: "height", 3: "width"}}


class PoolsInItsForward(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, 3)


@pytest.mark.parametrize("size", [14, 15])
@pytest.mark.parametrize(
    "module",
    [nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(7)), PoolsInItsForward()],
    ids=["module", "function"],
)
def test_adaptive_pooling_over_an_open_size_holds_at_others(
    export: Export, tmp_path: Path, module: nn.Module, size: int
) -> None:
    graph = export(module, 2, 3, size, size, dynamic_axes=OPEN_IMAGE)
    for height, width in ((14, 15), (7, 31), (40, 9)):
        x = torch.rand(1, 3, height, width)
        (y,) = run_graph(graph, tmp_path, x=x)
        assert np.abs(y - module(x).numpy()).max() < SMALL_ERROR


def test_adaptive_pooling_over_a_fixed_size_is_one_node(export: Export) -> None:
    graph = export(nn.AdaptiveAvgPool2d(7), 2, 3, 14, 14)
    assert graph.num_nodes_by_op == {"AveragePool": 1}


class CropsFirst(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x.narrow(2, 0, 14).narrow(3, 0, 14), 7)


def test_adaptive_pooling_behind_a_crop_holds(export: Export, tmp_path: Path) -> None:
    graph = export(CropsFirst(), 2, 3, 20, 22, dynamic_axes=OPEN_IMAGE)
    x = torch.rand(1, 3, 17, 31)
    (y,) = run_graph(graph, tmp_path, x=x)
    assert np.abs(y - CropsFirst()(x).numpy()).max() < SMALL_ERROR


def test_open_image_sizes_hold_where_pooling_is_global(
    export: Export, tmp_path: Path, small_net: nn.Module
) -> None:
    graph = export(small_net, 2, 3, 16, 16, dynamic_axes=OPEN_IMAGE)
    assert graph.inputs[0].dims == ("batch", 3, "height", "width")
    for height, width in ((16, 16), (17, 31), (40, 5)):
        x = torch.randn(1, 3, height, width)
        (y,) = run_graph(graph, tmp_path, x=x)
        assert np.abs(y - small_net(x).detach().numpy()).max() < SMALL_ERROR


def test_range_that_the_layers_demand_is_known(export: Export) -> None:
    net = nn.Sequential(*(nn.MaxPool2d(2) for _ in range(5)))
    ranges = export(net, 2, 3, 64, 64, dynamic_axes=OPEN_IMAGE).dynamic_axes
    assert [ranges[symbol].min for symbol in ("batch", "height", "width")] == [1, 32, 32]
    assert all(axis.max is None for axis in ranges.values())
