"""float64 throughout, whatever a network's code does, and the network stays as it was."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.errors import ExportError
from dlzoo.export.reference.float64_arithmetic import compute_in_float64

#: A few float64 roundings of numbers up to 10: float32 would be off by 1e-7 and more.
FLOAT64_ERROR = 1e-14


class CastsToFloat32(nn.Module):
    """What mixed-precision code does around a softmax."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x.float(), dim=-1).to(torch.float32) / 3


class WritesInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros(x.shape, dtype=torch.float32)
        y[:] = x * self.weight
        y += torch.arange(4, dtype=torch.float32)
        return y.mul_(0.5)


class WritesIntoABuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.cache[:] = x
        return self.cache * 0.1


class CombinesItsParameters(nn.Module):
    """Weight standardization and the like: arithmetic before the input is met."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.weight = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.gain / self.weight.norm()
        return F.linear(x, weight)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(x.unsqueeze(1))[0]
        return y


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attention(x, x, x)[0]
        return y


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x[:, None, None]))
        return y


NETWORKS = [
    CastsToFloat32,
    WritesInPlace,
    WritesIntoABuffer,
    CombinesItsParameters,
    Recurrent,
    Attention,
    Images,
    lambda: nn.Sequential(
        nn.Linear(4, 700), nn.GELU(), nn.Linear(700, 900), nn.LayerNorm(900)
    ),
]


class CachesWhatItComputed(nn.Module):
    """As timm's attention keeps its biases by device, whatever their type."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(4))
        self.cache: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if "cpu" not in self.cache:
            self.cache["cpu"] = self.bias * 2
        return x + self.cache["cpu"]


def test_what_a_network_caches_is_forgotten() -> None:
    module = CachesWhatItComputed().eval()
    x = torch.randn(3, 4)
    y = compute_in_float64(module, {"x": x}, ["y"])["y"]
    assert y.dtype == torch.float64
    assert module.cache == {}
    assert module(x).dtype == torch.float32
    # What it had kept before is there again.
    (kept,) = module.cache.values()
    compute_in_float64(module, {"x": x}, ["y"])
    assert module.cache["cpu"] is kept


def doubled_answer(module: nn.Module, x: Tensor) -> Tensor:
    """The same network, copied into float64, with its own casts to float32 made harmless."""
    double = copy.deepcopy(module).double()
    with torch.no_grad():
        if isinstance(module, CastsToFloat32):
            return torch.softmax(x.double(), dim=-1) / 3
        if isinstance(module, WritesInPlace):
            return (x.double() * double.weight + torch.arange(4.0).double()) * 0.5
        y: Tensor = double(x.double())
        return y


@pytest.mark.parametrize("build", NETWORKS)
def test_answer_is_float64s_and_the_network_unchanged(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = build().eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    x = torch.randn(3, 4)
    y = compute_in_float64(module, {"x": x}, ["y"])["y"]
    expected = doubled_answer(module, x)
    assert y.dtype == torch.float64
    assert (y - expected).abs().max() < FLOAT64_ERROR
    assert not y.requires_grad
    with torch.no_grad():
        float32_error = (module(x) - expected).abs().max()
    assert float32_error > 100 * FLOAT64_ERROR, "the bound would notice float32"
    if not isinstance(module, WritesIntoABuffer):
        for name, value in module.state_dict().items():
            assert torch.equal(value, state[name])
            assert value.dtype == state[name].dtype
    assert torch.get_default_dtype() == torch.float32


def test_linear_layers_are_exact_against_numpy() -> None:
    """Wide enough for several blocks of rows."""
    layer = nn.Linear(1000, 1000)
    x = torch.randn(2, 1000)
    y = compute_in_float64(layer, {"x": x}, ["y"])["y"].numpy()
    weight, bias = (p.detach().numpy().astype(np.float64) for p in layer.parameters())
    assert np.abs(y - (x.numpy().astype(np.float64) @ weight.T + bias)).max() < 1e-13


class Pixels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.uint8
        return x.to(torch.float32) / 255


def test_integer_inputs_stay_integer() -> None:
    x = torch.tensor([[1, 254]], dtype=torch.uint8)
    y = compute_in_float64(Pixels(), {"x": x}, ["y"])["y"]
    assert y.tolist() == [[1 / 255, 254 / 255]]


@torch.library.custom_op("dlzoo_test::narrow", mutates_args=())
def narrow(x: Tensor) -> Tensor:
    return x.to(torch.float32) * 2


class Narrow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.dlzoo_test.narrow(x)
        return y


def test_network_that_insists_on_float32_has_no_reference() -> None:
    with pytest.raises(ExportError) as e:
        compute_in_float64(Narrow(), {"x": torch.ones(2)}, ["y"])
    assert str(e.value) == (
        "Narrow has no float64 reference: dlzoo_test.narrow.default computes in float32. Let the "
        "network take its dtype from its input."
    )
