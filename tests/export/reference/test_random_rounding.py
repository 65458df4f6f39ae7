"""Roundings moved at random: by the right amount, everywhere that PyTorch rounds, nowhere else."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.export.reference.random_rounding import RandomRounding, random_rounding
from tests.support.layer_networks import NETWORKS, built

U = 2.0**-24


def rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def moved(of: Callable[[], Tensor], seed: int = 0) -> Tensor:
    with torch.no_grad(), RandomRounding(seed):
        return of()


X = torch.randn(4, 6, 20, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "exact",
    [
        lambda: F.relu(X),
        lambda: F.max_pool2d(X, 3),
        lambda: X.amax((2, 3)),
        lambda: X.transpose(1, 2).reshape(4, -1),
        lambda: torch.cat([X, X.neg()], 1),
        lambda: X.clamp(-1, 1),
        lambda: X[:, [2, 0]],
        lambda: F.pad(X, (1, 1)),
        lambda: torch.where(X > 0, X, -X),
        lambda: X.masked_fill(X > 1, -1e9),
        lambda: X.flatten(1).topk(3).values,
        lambda: F.interpolate(X, scale_factor=2),
        lambda: F.pixel_shuffle(X[:, :4], 2),
        lambda: X.flatten(1).sort(1).values,
    ],
)
def test_nothing_moves_where_nothing_is_rounded(exact: Callable[[], Tensor]) -> None:
    assert torch.equal(moved(exact), exact())


@pytest.mark.parametrize(
    ("rounds", "num_terms"),
    [
        (lambda: X + X.flip(0), 1),
        (lambda: X * 1.1, 1),
        (lambda: torch.exp(X), 1),
        (lambda: F.conv2d(X, X[:3, :, :3, :3].contiguous()), 54),
        (lambda: X.flatten(1) @ X.flatten(1).t(), 2400),
        (lambda: X.mean((2, 3)), 400),
        (lambda: F.avg_pool2d(X, 5), 25),
        (lambda: F.softmax(X, 3), 20),
        (lambda: F.layer_norm(X, (20,)), 20),
        (lambda: F.group_norm(X, 2), 1200),
    ],
)
def test_the_size_follows_the_number_of_terms(
    rounds: Callable[[], Tensor], num_terms: int
) -> None:
    right, wrong = rounds(), moved(rounds)
    error = rms(wrong - right) / rms(right)
    # r is uniform in [-1, 1], and float32 rounds the moved result once more.
    expected = U * max(1.0, math.sqrt(num_terms) / 2) / math.sqrt(3)
    assert 0.4 * expected < error < 3 * expected


def test_in_place_is_the_same_arithmetic() -> None:
    a = moved(lambda: X.clone().mul_(1.1).add_(0.3))
    b = moved(lambda: (X * 1.1) + 0.3)
    assert rms(a - X * 1.1 - 0.3) == pytest.approx(rms(b - X * 1.1 - 0.3), rel=0.1)
    assert torch.equal(moved(lambda: X.clone().relu_()), X.relu())


def test_arithmetic_of_whole_numbers_is_exact() -> None:
    """As in an image's fixed-point resampling, where a floor follows."""
    pixels = torch.randint(0, 256, (2, 3, 20, 20), generator=torch.Generator().manual_seed(0))
    x = pixels.float()
    for of in (
        lambda: F.conv2d(x, torch.ones(1, 3, 3, 3)),
        lambda: torch.floor((x * 2048 + x) * (1 / 2048)),
        lambda: x.sum((2, 3)),
        lambda: x * 0.5 + 0.25,
    ):
        assert torch.equal(moved(of), of())
    assert not torch.equal(moved(lambda: x / 255), x / 255)
    assert not torch.equal(moved(lambda: X * 3e9), X * 3e9)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_special_values_stay_what_they_are(value: float) -> None:
    x = X.clone()
    x[0, 0, 0, 0] = value
    for of in (lambda: x * 1.1, lambda: x.mean(3), lambda: F.softmax(x, 1)):
        right, wrong = of(), moved(of)
        assert torch.equal(right.isnan(), wrong.isnan())
        assert torch.equal(right.isinf(), wrong.isinf())
        finite = right.isfinite()
        assert rms((wrong - right)[finite]) < 1e-4


def test_a_seed_draws_the_same_errors() -> None:
    first, again, other = (moved(lambda: X * 1.1, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_channels_last_is_moved_as_much() -> None:
    x = X.contiguous(memory_format=torch.channels_last)
    errors = [rms(moved(lambda t=t: t * 1.1) - t * 1.1) for t in (X, x, x[:, ::2])]  # type: ignore[misc]
    assert max(errors) < 1.2 * min(errors)


def test_every_part_of_a_large_tensor_is_moved() -> None:
    x = torch.ones(3, 1000, 1200)
    changed = moved(lambda: x * 1.9) != x * 1.9
    assert (changed.flatten(1).double().mean(1) > 0.2).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_floor_is_about_pytorchs_own_error(name: str) -> None:
    """Between a third of PyTorch's own error and, for its exact sums, two hundred times that."""
    module, x = built(name, 0)
    with torch.no_grad():
        plain = module(x)
        wide = module.double()(x.double())
        module.float()
    floors = []
    for seed in range(3):
        with random_rounding(module, seed):
            floors.append(module(x))
    if isinstance(plain, tuple):
        plain, wide, floors = plain[-1], wide[-1], [f[-1] for f in floors]
    own = rms(plain - wide)
    floor = max(rms(f - wide) for f in floors)
    assert floor > own / 3
    assert floor < 1e-3 * rms(wide)


def test_recurrent_layers_and_attention_are_moved_inside() -> None:
    """Fused kernels would be moved once, at their end."""
    torch.manual_seed(0)
    for module in (nn.LSTM(8, 8, 2), nn.GRU(8, 8)):
        module.eval()
        x = torch.randn(30, 2, 8)
        with torch.no_grad():
            right = module(x)[0]
        with random_rounding(module, 0):
            wrong = module(x)[0]
        error = (wrong - right).abs().mean((1, 2))
        assert error[-1] > error[0] > 0
        assert torch.backends.mkldnn.enabled
