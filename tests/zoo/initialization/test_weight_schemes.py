"""Initialization: moments against formulas, orthogonality, unit variance, the same bytes."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.float64 import Float64Arithmetic
from dlzoo.zoo.initialization.kernels import find_kernels
from dlzoo.zoo.initialization.weight_schemes import (
    DefaultScheme,
    Initialization,
    LayerSequentialUnitVariance,
    Orthogonal,
)
from dlzoo.zoo.layers.connection_table import TableConvolution
from dlzoo.zoo.layers.pool import TrainableSubsampling

#: (layer, fan_in, fan_out) with many enough weights for moments.
LAYERS: dict[str, tuple[nn.Module, int, int]] = {
    "linear": (nn.Linear(300, 200), 300, 200),
    "conv": (nn.Conv2d(40, 60, 5), 40 * 25, 60 * 25),
    "grouped": (nn.Conv2d(120, 240, 3, groups=4), 30 * 9, 60 * 9),
    "depthwise": (nn.Conv2d(2000, 2000, (5, 3), groups=2000), 15, 15),
    "conv1d": (nn.Conv1d(50, 100, 7, groups=2), 25 * 7, 50 * 7),
    "transposed": (nn.ConvTranspose2d(60, 80, 3, groups=2), 30 * 9, 40 * 9),
    "attention": (nn.MultiheadAttention(120, 4), 120, 120),
}
KAIMING_GAINS = {
    "linear": 1.0,
    "relu": math.sqrt(2),
    "tanh": 5 / 3,
    "sigmoid": 1.0,
    "selu": 0.75,
    "leaky-relu": math.sqrt(2 / 1.04),
}
#: Variance and kurtosis of a normal distribution cut at 2 standard deviations: with
#: Z = erf(sqrt(2)) and d = exp(-2) / sqrt(2 pi), 1 - 4 d / Z and (3 - (8 + 6) 2 d / Z ) / var^2.
_DENSITY = math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))
CUT_VARIANCE = 1 - 4 * _DENSITY
CUT_KURTOSIS = (3 - 28 * _DENSITY) / CUT_VARIANCE**2
KURTOSIS = {"normal": 3.0, "uniform": 1.8, "truncated-normal": CUT_KURTOSIS}


def scheme_of(values: dict[str, Any]) -> Initialization:
    return TypeAdapter[Initialization](Initialization).validate_python(values)


def expected_variances() -> list[Any]:
    cases: list[Any] = []

    def add(variance: Any, distribution: str, **values: Any) -> None:
        cases.append(pytest.param(values, variance, distribution, id=str(values)))

    add(lambda i, o: 0.3**2 / 3, "uniform", name="uniform", bound=0.3)
    add(lambda i, o: 0.3**2, "normal", name="normal", std=0.3)
    cut = 0.3**2 * CUT_VARIANCE
    add(lambda i, o: cut, "truncated-normal", name="truncated-normal", std=0.3)
    for d in ("normal", "uniform"):
        add(lambda i, o: 4 / i, d, name=f"lecun-{d}", gain=2.0)
        add(lambda i, o: 8 / (i + o), d, name=f"xavier-{d}", gain=2.0)
        add(lambda i, o: 2 / o, d, name=f"kaiming-{d}", fan="out")
    for kind, gain in KAIMING_GAINS.items():
        add(
            lambda i, o, gain=gain: gain**2 / i,
            "normal",
            name="kaiming-normal",
            nonlinearity=kind,
            negative_slope=0.2,
        )
    return cases


@pytest.mark.parametrize(("values", "variance", "distribution"), expected_variances())
@pytest.mark.parametrize("layer", LAYERS)
def test_moments(values: dict[str, Any], variance: Any, distribution: str, layer: str) -> None:
    module, fan_in, fan_out = LAYERS[layer]
    scheme_of(values).apply(module, seed=3)
    weight: Tensor = module.in_proj_weight if layer == "attention" else module.weight  # type: ignore[assignment]
    drawn = weight.detach().double().flatten()
    expected = variance(fan_in, fan_out)
    # Five standard deviations of each estimate, from the moments of the distribution itself.
    n, kurtosis = len(drawn), KURTOSIS[distribution]
    assert abs(drawn.mean()) <= 5 * math.sqrt(expected / n)
    error = 5 * math.sqrt((kurtosis - 1) / n)
    assert drawn.square().mean().item() == pytest.approx(expected, rel=error)
    fourth = drawn.pow(4).mean().item() / expected**2
    # The fourth moment's own deviation is at most that of the normal, sqrt(96 / n).
    assert fourth == pytest.approx(kurtosis, abs=5 * math.sqrt(96 / n))
    if distribution != "normal":
        limit = math.sqrt(3) if distribution == "uniform" else 2 / math.sqrt(CUT_VARIANCE)
        largest = drawn.abs().max().item() / math.sqrt(expected)
        assert 0.99 * limit <= largest <= limit * (1 + 1e-6)


def test_gains_are_torchs() -> None:
    for kind, gain in KAIMING_GAINS.items():
        torchs = nn.init.calculate_gain(kind.replace("-", "_"), 0.2)  # type: ignore[arg-type]
        assert torchs == pytest.approx(gain)


def test_layers_of_lenet() -> None:
    """Each output map of C3 has its own number of inputs, each channel of S2 one coefficient."""
    table = TableConvolution(6, [[0, 1, 2], [0, 1, 2, 3, 4, 5]], 5)
    kernels = find_kernels(nn.Sequential(table, TrainableSubsampling(7, 2)))
    assert [(k.fan_in, k.fan_out, tuple(k.values.shape)) for k in kernels] == [
        (75, 38, (1, 3, 5, 5)),
        (150, 38, (1, 6, 5, 5)),
        (4, 1, (7,)),
    ]
    scheme_of({"name": "orthogonal", "gain": 3.0}).apply(table)
    lengths = [table.weight[:3].square().sum().item(), table.weight[3:].square().sum().item()]
    assert lengths == pytest.approx([9.0, 9.0], rel=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_orthogonal(layer: str) -> None:
    module = LAYERS[layer][0]
    Orthogonal(gain=1.5).apply(module, seed=1)
    kernels = find_kernels(module)
    assert len(kernels) == {"attention": 4}.get(layer, getattr(module, "groups", 1))
    for kernel in kernels[:4]:
        matrix = kernel.values.double().reshape(kernel.values.shape[0], -1)
        is_wide = matrix.shape[0] <= matrix.shape[1]
        product = matrix @ matrix.T if is_wide else matrix.T @ matrix
        # Entries were rounded to float32.
        assert (product - 2.25 * torch.eye(len(product))).abs().max() <= 1e-5
    assert len({kernel.values.flatten()[0].item() for kernel in kernels}) > len(kernels) * 0.4


def test_orthogonal_coefficients() -> None:
    layer = TrainableSubsampling(64, 2)
    Orthogonal(gain=2.0).apply(layer)
    assert set(layer.coefficient.tolist()) == {1.0, -1.0}


# -- what is set, and what is left -----------------------------------------------------------------


class WithToken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.full((1, 4), 7.0))
        self.recurrent = nn.GRU(2, 3)
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4))
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(x).mean((2, 3)) + self.token))  # type: ignore[no-any-return]


SCHEMES = [kind.model_fields["name"].default for kind in get_args(get_args(Initialization)[0])]


@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "default"])
def test_biases_norms_and_what_is_left(name: str) -> None:
    module = WithToken()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(7.0)
        module.body[1].running_mean.fill_(7.0)
    left = scheme_of({"name": name, "bias": 0.25}).apply(
        module, torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    )
    assert left == [
        "token",
        *(f"recurrent.{kind}_l0" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    ]
    assert all((module.get_parameter(key) == 7).all() for key in left)
    for norm in (module.body[1], module.body[2], module.norm):
        assert (norm.weight == 1).all() and (norm.bias == 0).all()
    assert not module.body[1].running_mean.any()
    assert (module.body[0].bias == 0.25).all() and (module.head.bias == 0.25).all()
    assert len(module.head.weight.unique()) == 8


def test_default_changes_nothing() -> None:
    module = WithToken()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    assert DefaultScheme().apply(module) == [name for name, _ in module.named_parameters()]
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "default"])
def test_seed_decides_and_layers_differ(name: str) -> None:
    data = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

    def weights(seed: int) -> list[Tensor]:
        module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        scheme_of({"name": name}).apply(module, data, seed)
        return [part.weight.detach().clone() for part in module]

    first, second, other = weights(0), weights(0), weights(1)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[1])


def test_shared_layers_are_drawn_once() -> None:
    shared = nn.Linear(3, 3)
    module = nn.Sequential(shared, nn.ReLU(), shared)
    assert scheme_of({"name": "xavier-normal"}).apply(module) == []
    assert len(find_kernels(module)) == 1


PROGRAM = """
import hashlib, torch
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.initialization import weight_schemes as w
from dlzoo.zoo.state_dict import sha256_of_state_dict
for scheme in (w.KaimingNormal(), w.XavierUniform(), w.TruncatedNormalScheme(), w.Orthogonal(),
               w.LayerSequentialUnitVariance()):
    module = get_card("squeezenet1_1").builder()
    scheme.apply(module, torch.linspace(-1, 1, 3 * 3 * 64 * 64).sin().reshape(3, 3, 64, 64), 5)
    print(scheme.name, sha256_of_state_dict(module.state_dict()))
"""


def test_same_bytes_for_any_number_of_threads() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            stdout=subprocess.PIPE,
            text=True,
        )
        for threads in ("1", "2")
    ]
    one, two = (process.communicate()[0].splitlines() for process in processes)
    assert len(one) == 5 and one == two
    assert len({hashlib.sha256(line.split()[1].encode()).digest() for line in one}) == 5


# -- layer-sequential unit variance ----------------------------------------------------------------


def variances_in_training(module: nn.Module, data: Tensor) -> dict[str, float]:
    """Of the outputs of every convolution and linear layer, dropout apart."""
    found: dict[str, float] = {}
    layers = (nn.Conv2d, nn.Linear, TableConvolution, TrainableSubsampling)
    for part in module.modules():
        part.training = not isinstance(part, nn.Dropout)
    handles = []
    for name, part in module.named_modules():
        if isinstance(part, layers):

            def note(_: nn.Module, args: Any, y: Tensor, name: str = name) -> None:
                found[name] = y.var(correction=0).item()

            handles.append(part.register_forward_hook(note))
    with torch.no_grad(), Float64Arithmetic():
        module(data.double())
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize(
    ("model", "arguments", "num_layers"),
    [
        ("lenet5", {}, 6),
        ("lenet5_relu", {}, 5),
        ("squeezenet1_1", {}, 26),
        ("resnet18", {}, 21),
        ("googlenet", {"aux_logits": True}, 58 + 6),
    ],
)
def test_lsuv_gives_every_layer_unit_variance(
    model: str, arguments: dict[str, Any], num_layers: int
) -> None:
    card = get_card(model)
    module = card.builder(**arguments)
    size = 32 if card.input_shape[1] == 32 else 64
    data = torch.randn(4, card.input_shape[0], size, size, generator=torch.manual_seed(0))
    module.eval()
    buffers = {key: value.clone() for key, value in module.named_buffers()}
    before = torch.get_rng_state()
    scheme = LayerSequentialUnitVariance(bias=0.5)
    assert scheme.apply(module, data * 3 + 1) == []
    assert torch.equal(torch.get_rng_state(), before) and not module.training
    assert all(torch.equal(v, buffers[k]) for k, v in module.named_buffers())
    variances = variances_in_training(module, data * 3 + 1)
    assert len(variances) == num_layers
    assert all(abs(variance - 1) <= 0.01 for variance in variances.values()), variances


def test_lsuv_scales_attention_too() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, x_NTE: Tensor) -> Tensor:
            self.given = x_NTE
            y_NTE: Tensor = self.attention(x_NTE, x_NTE, x_NTE, need_weights=False)[0]
            return y_NTE

    module = Attention()
    data = torch.randn(8, 16, 32, generator=torch.Generator().manual_seed(0)) * 5 + 2
    LayerSequentialUnitVariance().apply(module, data)
    with torch.no_grad():
        output = module(data)
        packed = data @ module.attention.in_proj_weight.T
    for part in (*packed.chunk(3, dim=-1), output):
        assert part.var(correction=0).item() == pytest.approx(1, abs=0.01)


def test_lsuv_refuses_what_it_cannot_measure() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    scheme = LayerSequentialUnitVariance()
    with pytest.raises(ArgumentError) as caught:
        scheme.apply(module)
    assert str(caught.value) == (
        "Initialization lsuv: got no batch, expected at least 2 inputs to measure variances on; "
        "pass a batch of training data."
    )
    with pytest.raises(ArgumentError, match="got a batch of 1, expected at least 2"):
        scheme.apply(module, torch.ones(1, 3))
    with pytest.raises(ArgumentError) as caught:
        scheme.apply(module, torch.zeros(4, 3))
    assert str(caught.value) == (
        "Initialization lsuv: layer 0 has outputs of variance 0 on the batch, expected more "
        "than 0; pass data that differ, or choose another scheme."
    )
    with pytest.raises(ArgumentError, match="layer 0 has outputs of variance nan"):
        scheme.apply(module, torch.full((4, 3), math.nan))
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize(
    "values",
    [
        {"name": "normal", "std": 0},
        {"name": "kaiming-normal", "nonlinearity": "mish"},
        {"name": "kaiming-normal", "distribution": "uniform"},
        {"name": "orthogonal", "gain": -1},
        {"name": "default", "bias": 1},
    ],
    ids=str,
)
def test_numbers_out_of_bounds_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        scheme_of(values)
