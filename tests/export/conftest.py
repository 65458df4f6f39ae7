"""Networks that export in a second and hold what trips exporters up."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dlzoo.export.onnx_from_torch import OnnxGraph, onnx_from_torch


class SmallNet(nn.Module):
    """Convolution, batch norm, pooling, dropout, a shared activation and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout()
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(self.act(self.norm(self.conv(x))))
        y = y + self.act(-y)
        scores: Tensor = self.fc(self.drop(torch.flatten(self.squeeze(y), 1)))
        return scores


def _build_small_net() -> SmallNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SmallNet()
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.5)
        nn.init.normal_(net.norm.running_mean)
        nn.init.uniform_(net.norm.running_var, 0.5, 2.0)
    return net.eval()


@pytest.fixture
def small_net() -> SmallNet:
    return _build_small_net()


@pytest.fixture(scope="session")
def small_graph() -> OnnxGraph:
    """A small net's graph with a dynamic batch. Do not change it."""
    return onnx_from_torch(
        _build_small_net(),
        {"input": torch.zeros(2, 3, 16, 16)},
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}},
    )


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
