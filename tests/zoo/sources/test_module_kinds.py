"""Networks with state of unusual kinds export, or are refused in one line that is true."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from dlzoo.errors import ArgumentError
from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.load import load_source
from dlzoo.zoo.sources.source import SourceOptions
from tests.support.exported_answers import IMAGE, export_and_compare

pytestmark = pytest.mark.filterwarnings("ignore")  # torch deprecates half of what is used here


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class ExtraState(Net):
    """Keeps a number and names beside its tensors."""

    scale = 3.0

    def get_extra_state(self) -> dict[str, Any]:
        return {"scale": self.scale, "names": ["a", "b"]}

    def set_extra_state(self, state: Any) -> None:
        self.scale = state["scale"]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class Tied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.second(torch.relu(self.first(x))))


class NotSaved(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ramp", torch.arange(8.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.ramp)


class NotCopied(Net):
    """Holds what deepcopy refuses, and needs a float64 copy: it writes into what it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            return super().forward(x).mul_(2)


class InferenceBuffer(Net):
    def __init__(self) -> None:
        super().__init__()
        with torch.inference_mode():
            self.register_buffer("ramp", torch.arange(8.0))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.ramp)


def changed(change: Callable[[nn.Module], object]) -> nn.Module:
    net = Net()
    change(net.conv)
    return net


@pytest.mark.parametrize(
    "build",
    [
        ExtraState,
        Tied,
        NotSaved,
        NotCopied,
        InferenceBuffer,
        lambda: changed(parametrizations.weight_norm),
        lambda: changed(parametrizations.spectral_norm),
        lambda: changed(nn.utils.weight_norm),
        lambda: changed(nn.utils.spectral_norm),
        lambda: changed(lambda conv: prune.l1_unstructured(conv, "weight", 0.5)),
    ],
)
def test_state_of_every_kind_exports_without_a_word(
    build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    assert export_and_compare(build().eval(), tmp_path).notes == ()


def quantized_dynamically() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(
        nn.Sequential(nn.Linear(8, 8), nn.ReLU()), {nn.Linear}, dtype=torch.qint8
    )


def quantized_recurrent() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(
        nn.Sequential(nn.LSTM(8, 4)), {nn.LSTM}, dtype=torch.qint8
    )


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8).to_sparse())

    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(self.weight, x.reshape(-1, 8).T).T


class CompressedSparse(Sparse):
    def __init__(self) -> None:
        super().__init__()
        del self.weight
        self.register_buffer("weight", torch.eye(8).to_sparse_csr())


class ScriptedPart(Net):
    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.part = torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.part(super().forward(x))
        return y


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (quantized_dynamically, "Sequential is quantized: '0' is torch.ao.nn.quantized"),
        (quantized_recurrent, "Sequential is quantized: '0' is torch.ao.nn.quantized"),
        (
            lambda: nn.LazyBatchNorm2d(affine=False),
            "running_mean without a shape: a lazy layer",
        ),
        (lambda: nn.LazyConv2d(4, 3), "weight without a shape: a lazy layer"),
        (Sparse, "Sparse has weight as a sparse_coo tensor, expected a dense one"),
        (CompressedSparse, "has weight as a sparse_csr tensor, expected a dense one"),
        (lambda: Net().half(), "has conv.weight in float16, expected float32"),
        (lambda: Net().bfloat16(), "has conv.weight in bfloat16, expected float32"),
        (lambda: Net().to("meta"), "it has a shape and no values. Call .to_empty"),
        (ScriptedPart, "ScriptedPart has 'part' as TorchScript, which torch.export does not"),
    ],
)
def test_state_that_has_no_onnx_form_is_named(
    build: Callable[[], nn.Module], reason: str
) -> None:
    inputs = (IMAGE, InputSpec(name="x", shape=(1, 8)))["quantized" in reason]
    with pytest.raises(ArgumentError) as error:
        load_source(build().eval(), SourceOptions(inputs=(inputs,)))
    assert reason in str(error.value) and "\n" not in str(error.value)
