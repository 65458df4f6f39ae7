"""How a project tests that its own layers compute the same in ONNX as in PyTorch.

Run it with ``pytest examples/test_my_network.py``. dlzoo's pytest plugin provides the
fixture ``onnx_provider``: every ONNX Runtime provider that the machine has, in turn.
"""

import pytest
import torch
from torch import Tensor, nn

from dlzoo.testing import assert_onnx_parity


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(4, width)
        self.act = nn.Mish()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.act(self.norm(self.conv(x)))
        return y


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block()


def test_block_on_every_provider(block: Block, onnx_provider: str) -> None:
    assert_onnx_parity(block, torch.randn(2, 16, 8, 8), provider=onnx_provider)


@pytest.mark.parametrize("opset", [17, 20])
def test_block_at_the_opsets_we_ship(block: Block, opset: int) -> None:
    assert_onnx_parity(block, torch.randn(2, 16, 8, 8), opset=opset)


@pytest.mark.onnx_providers("cpu", "cuda")
def test_gpu_too(block: Block, onnx_provider: str) -> None:
    """Skipped, with the reason, on a machine without a GPU."""
    assert_onnx_parity(block, torch.randn(2, 16, 8, 8), provider=onnx_provider)


def test_a_wrong_graph_does_not_pass() -> None:
    class Deceiving(Block):
        def forward(self, x: Tensor) -> Tensor:
            scale = 1.01 if torch.compiler.is_exporting() else 1.0
            return super().forward(x * scale)

    with pytest.raises(AssertionError, match="rho2"):
        assert_onnx_parity(Deceiving(), torch.randn(2, 16, 8, 8))
