"""A small network, and an export of any other."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.graph.onnx_graph import OnnxGraph
from tests.support.small_net import SmallNet, build_small_net


@pytest.fixture
def small_net() -> SmallNet:
    return build_small_net()


Export = Callable[..., OnnxGraph]


@pytest.fixture
def export() -> Export:
    """Export a module of one input, ``x``, of the shape given, with a dynamic batch."""

    def run(module: nn.Module, *shape: int, **arguments: object) -> OnnxGraph:
        asked: dict[str, object] = {
            "output_names": ["y"],
            "dynamic_axes": {"x": {0: "batch"}},
            **arguments,
        }
        return onnx_from_torch(module.eval(), {"x": torch.zeros(*shape)}, **asked)  # type: ignore[arg-type]

    return run
