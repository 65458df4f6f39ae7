"""Untrained networks through which signal flows."""

from __future__ import annotations

import copy
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.float64 import Float64Arithmetic
from dlzoo.zoo.initialization.draws import PortableDraws
from dlzoo.zoo.initialization.signal import _images, scale_to_unit_variance

#: Relative size of a fault, and how many times float32's own error it must move the outputs.
FAULT, MIN_RATIO = 1e-3, 10.0
#: Two images must give outputs that differ by this, relative.
MIN_DIFFERENCE = 1e-2
#: Tensors of a network that get a fault, spread evenly.
NUM_FAULTY = 10

#: Small images, for speed; lenet5 takes no others.
SIZES = {
    "lenet5": 32,
    "lenet5_relu": 32,
    "squeezenet1_1": 64,
    "mobilenet_v2": 96,
    "googlenet": 64,
    "googlenet_2014": 96,
    "densenet121": 64,
    "resnet18": 64,
    "resnet50_gn": 64,
    "convnext_tiny": 64,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small operations on two threads take ten times as long where others want the cores."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def build(name: str, seed: int = 0, size: int | None = None) -> tuple[nn.Module, Tensor]:
    """A network with signal, and two images that it has not seen."""
    card = get_card(name)
    size = size or SIZES[name]
    shape = (card.input_shape[0], size, size)
    with PortableDraws(seed):
        network = card.builder()
    scale_to_unit_variance(network, shape, seed)
    generator = torch.Generator().manual_seed(99)
    return network.eval(), torch.randn(2, *shape, generator=generator)


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


@torch.no_grad()
def difference_between_images(network: nn.Module, x_NCHW: Tensor) -> float:
    with Float64Arithmetic():
        one, other = network(x_NCHW.double())
    return rms(one - other) / rms(one)


@torch.no_grad()
def faults_over_noise(network: nn.Module, x_NCHW: Tensor) -> dict[str, float]:
    """How far a fault moves the outputs, in units of float32's error, by tensor."""
    with Float64Arithmetic():
        reference = network(x_NCHW.double())
    noise = rms(network(x_NCHW) - reference)
    # Not num_batches_tracked, nor buffers that follow from the architecture.
    running = ("running_mean", "running_var")
    tensors = [
        *network.named_parameters(),
        *(item for item in network.named_buffers() if item[0].endswith(running)),
    ]
    ratios = {}
    for name, tensor in tensors[:: max(1, len(tensors) // NUM_FAULTY)]:
        sound = tensor.clone()
        generator = torch.Generator().manual_seed(1)
        tensor.mul_(1 + FAULT * torch.randn(tensor.shape, generator=generator))
        with Float64Arithmetic():
            ratios[name] = rms(network(x_NCHW.double()) - reference) / noise
        tensor.copy_(sound)
    return ratios


@pytest.mark.parametrize("name", SIZES)
def test_two_images_differ_and_every_fault_shows(name: str) -> None:
    network, x_NCHW = build(name)
    assert difference_between_images(network, x_NCHW) > MIN_DIFFERENCE
    ratios = faults_over_noise(network, x_NCHW)
    assert len(ratios) >= NUM_FAULTY
    assert min(ratios.values()) > MIN_RATIO, min(ratios.items(), key=lambda item: item[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["alexnet_2012", "vit_b_16", "cspdarknet53", "inception_v3", "resnet152", "vgg19"]
)
def test_faults_show_in_large_networks_too(name: str) -> None:
    network, x_NCHW = build(name, size=get_card(name).input_shape[1])
    assert difference_between_images(network, x_NCHW) > MIN_DIFFERENCE
    ratios = faults_over_noise(network, x_NCHW)
    assert min(ratios.values()) > MIN_RATIO, min(ratios.items(), key=lambda item: item[1])


def test_without_it_googlenet_hides_what_it_is_given() -> None:
    """The measure can fail: as built, every image gets the same answer."""
    torch.manual_seed(0)
    network = get_card("googlenet").builder().eval()
    x_NCHW = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert difference_between_images(network, x_NCHW) < 1e-6


# -- each layer by itself ------------------------------------------------------------------------


def outputs_of(network: nn.Module, kind: type[nn.Module], x: Tensor) -> list[Tensor]:
    """What each layer of a kind gives, in float64."""
    outputs: list[Tensor] = []
    handles = [
        part.register_forward_hook(lambda part, args, y: outputs.append(y.clone()))
        for part in network.modules()
        if isinstance(part, kind)
    ]
    with torch.no_grad(), Float64Arithmetic():
        network(x)
    for handle in handles:
        handle.remove()
    return outputs


def test_outputs_have_variance_1_and_biases_set_the_mean() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, groups=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(24 * 10 * 10, 50),
    )
    for index in (0, 2, 5):
        nn.init.zeros_(network[index].bias)
    scale_to_unit_variance(network, (3, 12, 12), seed=4)
    images = _images((3, 12, 12), seed=4)
    assert images.shape[0] == 16
    convolutions = outputs_of(network, nn.Conv2d, images)
    for y_NC in (
        *(y.movedim(1, -1).flatten(0, -2) for y in convolutions),
        *outputs_of(network, nn.Linear, images),
    ):
        mean_C, variance_C = y_NC.mean(0), y_NC.var(0, correction=0)
        # The scale is rounded to 10 bits: a relative error of up to 2^-10, twice that squared.
        assert abs(variance_C.mean().item() - 1) < 2**-8
        # 0.75 with a deviation of 0.3, uniform: up to 0.52 away.
        assert abs(mean_C.mean().item() - 0.75) < 0.3
        assert (mean_C - 0.75).abs().max() < 0.53
        assert 0.15 < mean_C.std() < 0.45


def test_batch_norm_gets_the_statistics_of_its_input() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    scale_to_unit_variance(network, (3, 12, 12), seed=4)
    x_NCHW = outputs_of(network, nn.Conv2d, _images((3, 12, 12), seed=4))[0]
    norm = network[1]
    assert rms(x_NCHW) == pytest.approx(1.0, rel=2**-9)
    variance_C, mean_C = torch.var_mean(x_NCHW, dim=(0, 2, 3), correction=0)
    # 10 bits each.
    assert (norm.running_var / variance_C - 1).abs().max() < 2**-9
    assert ((norm.running_mean - mean_C) / variance_C.sqrt()).abs().max() < 2**-9
    assert len(norm.weight.unique()) == len(norm.bias.unique()) == 8


def test_group_norm_is_not_drowned_by_what_all_images_share() -> None:
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, bias=False), nn.GroupNorm(2, 8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, groups=2, bias=False), nn.GroupNorm(2, 8)),
    )
    scale_to_unit_variance(network, (3, 24, 24), seed=4)
    y_NCHW = outputs_of(network, nn.Conv2d, _images((3, 24, 24), seed=4))[1]
    # Without padding the mean goes exactly, up to the rounding of the statistics to 10 bits.
    assert rms(y_NCHW) == pytest.approx(1.0, rel=2**-8)
    assert y_NCHW.mean((0, 2, 3)).abs().max() < 0.02


class Residual(nn.Module):
    """All that training starts without: zero branch, layer scale, class token, zero head."""

    def __init__(self) -> None:
        super().__init__()
        self.token_1E = nn.Parameter(torch.zeros(1, 8))
        self.layer_scale_E = nn.Parameter(torch.full((8,), 1e-6))
        self.fixed_E = nn.Parameter(torch.ones(8), requires_grad=False)
        self.register_buffer("codes_E", torch.zeros(8))
        self.norm = nn.LayerNorm(8)
        self.branch = nn.Linear(8, 8)
        self.last_norm = nn.BatchNorm1d(8)
        self.slope = nn.PReLU()
        self.head = nn.Linear(8, 4)
        self.auxiliary = nn.Linear(8, 4)
        for parameter in (
            self.last_norm.weight,
            self.branch.bias,
            self.head.weight,
            self.head.bias,
            self.auxiliary.bias,
        ):
            nn.init.zeros_(parameter)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NE = x_NCHW.flatten(1) + self.token_1E
        x_NE = x_NE + self.layer_scale_E * self.branch(self.norm(x_NE))
        x_NE = x_NE + self.slope(self.last_norm(x_NE) * self.fixed_E)
        y_NK: Tensor = self.head(x_NE)
        return y_NK


def test_what_training_starts_without_is_there() -> None:
    network = Residual()
    scale_to_unit_variance(network, (2, 2, 2), seed=1)
    assert torch.equal(network.fixed_E, torch.ones(8))
    assert torch.equal(network.codes_E, torch.zeros(8))
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert len(parameter.unique()) == parameter.numel(), name
            assert parameter.isfinite().all()
    for scale in (network.layer_scale_E, network.norm.weight, network.last_norm.weight):
        assert scale.min() > 0.2 and scale.max() < 1.6
    assert 0.1 < network.slope.weight.item() < 0.4
    assert rms(network.token_1E) > 0.3
    x_NCHW = torch.randn(2, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    assert difference_between_images(network.eval(), x_NCHW) > MIN_DIFFERENCE
    ratios = faults_over_noise(network, x_NCHW)
    # The auxiliary head is not on the way to the output.
    assert min(ratio for name, ratio in ratios.items() if "auxiliary" not in name) > MIN_RATIO
    assert ratios["auxiliary.weight"] == 0.0


def test_attention_attends() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, x_NCHW: Tensor) -> Tensor:
            x_NTE = x_NCHW.flatten(2).mT
            y_NTE, self.attention_NTS = self.attention(x_NTE, x_NTE, x_NTE)
            return y_NTE

    network = Attention()
    scale_to_unit_variance(network, (32, 8, 8), seed=2)
    images = _images((32, 8, 8), seed=2)
    with torch.no_grad(), Float64Arithmetic():
        y_NTE = network(images)
    assert y_NTE.var((0, 1), correction=0).mean().item() == pytest.approx(1.0, abs=2**-8)
    # Of 64 tokens, plain averaging gives each 1/64; here (over 4 heads) some get far more.
    assert network.attention_NTS.max(dim=-1).values.mean() > 4 / 64
    before = network.attention.in_proj_weight.clone()
    scale_to_unit_variance(network, (32, 8, 8), seed=2)
    query, key, value = (before / network.attention.in_proj_weight).chunk(3)
    for ratio in (query, key, value):
        # Scaled already: a second time changes next to nothing, and all alike.
        assert (ratio - 1).abs().max() < 2**-7


# -- what it leaves alone ------------------------------------------------------------------------


def test_modes_and_hooks_are_left_as_they_were() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    network.train()
    network[1].eval()
    scale_to_unit_variance(network, (3, 8, 8))
    assert [part.training for part in network.modules()] == [True, True, False, True]
    weight = network[0].weight.clone()
    network(torch.randn(2, 3, 8, 8))
    assert torch.equal(network[0].weight, weight)
    assert all(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(RuntimeError):
        scale_to_unit_variance(network, (5, 8, 8))
    assert network.training and not network[1].training
    assert not any(
        part._forward_hooks or part._forward_pre_hooks for part in network.modules()
    )


def test_shared_layer_is_scaled_once() -> None:
    shared = nn.Conv2d(3, 3, 1)
    network = nn.Sequential(shared, nn.ReLU(), shared)
    scale_to_unit_variance(network, (3, 8, 8), seed=3)
    first = nn.Sequential(copy.deepcopy(shared))
    y_NCHW = outputs_of(first, nn.Conv2d, _images((3, 8, 8), seed=3))[0]
    variance_C = y_NCHW.var((0, 2, 3), correction=0)
    assert variance_C.mean().item() == pytest.approx(1.0, abs=2**-8)


# -- the same bytes everywhere -------------------------------------------------------------------

PROGRAM = """
import sys, torch
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.state_dict import sha256_of_state_dict
from dlzoo.zoo.initialization.draws import PortableDraws
from dlzoo.zoo.initialization.signal import scale_to_unit_variance
torch.manual_seed(int(sys.argv[1]))
for name in sys.argv[2:]:
    with PortableDraws(5):
        network = get_card(name).builder()
    scale_to_unit_variance(network, (3, 64, 64), 5)
    print(name, sha256_of_state_dict(network.state_dict()))
"""


def test_same_bytes_whatever_the_threads_and_the_processor() -> None:
    names = ["squeezenet1_1", "mobilenet_v2", "convnext_tiny", "resnet50_gn"]
    without_avx = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    # Two threads are slow where others want the cores, so they get the smallest network.
    machines: list[tuple[dict[str, str], list[str]]] = [
        ({"OMP_NUM_THREADS": "1"}, names),
        ({"OMP_NUM_THREADS": "1", **without_avx}, names),
        ({"OMP_NUM_THREADS": "2"}, names[:1]),
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(index), *networks],
            env={**os.environ, **machine},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index, (machine, networks) in enumerate(machines)
    ]
    expected, *others = (process.communicate()[0].splitlines() for process in processes)
    assert len(expected) == len(names)
    assert others == [expected, expected[:1]]


@pytest.mark.parametrize("change", ["seed", "weights"])
def test_other_seed_or_weights_give_other_bytes(change: str) -> None:
    def digest(build_seed: int, seed: int) -> str:
        with PortableDraws(build_seed):
            network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        scale_to_unit_variance(network, (3, 8, 8), seed)
        values = torch.cat([p.detach().flatten() for p in network.parameters()])
        return hashlib.sha256(values.numpy().tobytes()).hexdigest()

    other: Callable[[], str] = {
        "seed": lambda: digest(0, 1),
        "weights": lambda: digest(1, 0),
    }[change]
    assert digest(0, 0) == digest(0, 0) != other()
