"""Networks for the tests of localization: exported once, with PyTorch's values of everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.diff.traced_network import TracedNetwork, pair_values, trace_network
from dlzoo.export.diff.traced_values import TracedValues
from dlzoo.runtime.bundle.golden_set import NoiseFloor
from dlzoo.runtime.diff.localization import Localizer, Suspect
from dlzoo.runtime.diff.value_checks import ValueCheck
from dlzoo.runtime.proof.limits import Limits
from dlzoo.runtime.session.tapped_session import TappedModel
from dlzoo.zoo.catalog import build_model
from tests.support.injected_faults import Fault, faulted

LIMITS = Limits(rho2=3.0, rhomax=6.0)
#: The five networks of the measured target, and the shape of a sample.
SAMPLE_SHAPES = {
    "lenet5_relu": (1, 32, 32),
    "hybrid": (3, 32, 32),
    "squeezenet1_1": (3, 64, 64),
    "mobilenet_v2": (3, 64, 64),
    "resnet18": (3, 64, 64),
    "googlenet": (3, 64, 64),
}


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, LayerNorm over channels, GELU (tanh), layer scale, residual."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, 4 * width)
        self.activation = nn.GELU("tanh")
        self.reduce = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.reduce(self.activation(self.expand(y)))
        return x + (self.scale * y).permute(0, 3, 1, 2)


class TransformerBlock(nn.Module):
    """Attention and an MLP, normalized first."""

    def __init__(self, width: int = 32, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, t, 3, self.num_heads, c // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c)
        x = x + self.projection(attended)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Hybrid(nn.Module):
    """What convolutional and attention networks are made of, small."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.stages = nn.Sequential(ConvNeXtBlock(), ConvNeXtBlock())
        self.down = nn.Conv2d(16, 32, 2, 2)
        self.position = nn.Parameter(torch.randn(1, 16, 32))
        self.blocks = nn.Sequential(TransformerBlock(), TransformerBlock())
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.stages(self.stem(x))).flatten(2).transpose(1, 2) + self.position
        scores: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return scores


def build(name: str) -> nn.Module:
    """A network of the table, with weights that every run draws alike."""
    if name != "hybrid":
        return build_model(name, weights="random").eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Hybrid().eval()


class _Remembered(TracedValues):
    """PyTorch's values, computed once for all faults of a network."""

    def __init__(self, network: TracedNetwork, inputs: Sequence[Any]) -> None:
        super().__init__(network, inputs)
        self._known: dict[str, tuple[Any, NoiseFloor]] = {}

    def values(self, names: Sequence[str]) -> dict[str, tuple[Any, NoiseFloor]]:
        self._known |= super().values([name for name in names if name not in self._known])
        return {name: self._known[name] for name in names if name in self._known}


@dataclass
class ExportedNetwork:
    """A network, its graph on disk, and PyTorch's values on one set of inputs."""

    name: str
    folder: Path
    opset: int = 20
    module: nn.Module = field(init=False)
    path: Path = field(init=False)
    network: TracedNetwork = field(init=False)
    inputs: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.module = build(self.name)
        shape = SAMPLE_SHAPES[self.name]
        asked: dict[str, Any] = {
            "output_names": ["logits"],
            "opset": self.opset,
            "dynamic_axes": {"input": {0: "batch"}},
        }
        example = {"input": torch.zeros(2, *shape)}
        self.path = self.folder / f"{self.name}.onnx"
        onnx_from_torch(self.module, example, **asked).save(self.path)
        self.network = trace_network(self.module, example, **asked)
        x = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
        self.inputs = {"input": x}
        self._reference = _Remembered(self.network, [x])

    def localizer(self, path: Path) -> Localizer:
        model = TappedModel(path)
        return Localizer(
            model=model,
            pairs=pair_values(self.network, model.graph),
            reference=self._reference,
            inputs=self.inputs,
            limits=LIMITS,
            twin=lambda: TappedModel(self.path),
        )

    def find(self, fault: Fault) -> tuple[list[ValueCheck], tuple[Suspect, ...]]:
        """What is said of the graph with a fault in it."""
        path = self.folder / "faulted.onnx"
        onnx.save(faulted(str(self.path), fault), path)
        localizer = self.localizer(path)
        checks = list(localizer.checks())
        return checks, localizer.find(checks)


def is_named_exactly(fault: Fault, suspects: Sequence[Suspect]) -> bool:
    """Whether the right node is accused, no other one is, and what is missing is named.

    A node that was removed leaves wrong inputs to each of its consumers.
    """
    if not suspects or [node.name for node in suspects[0].nodes] != [fault.node]:
        return False
    if fault.missing:
        named = {(suspect.kind, suspect.expected) for suspect in suspects}
        return named == {("missing", fault.missing)}
    return all(suspect.nodes == suspects[0].nodes for suspect in suspects)
