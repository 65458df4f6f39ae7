"""Losses of classes: each against its formula in float64 NumPy, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dlzoo.zoo.train.losses.cross_entropy import BinaryCrossEntropy, CrossEntropy, RbfMap
from dlzoo.zoo.train.losses.distances import Huber, MeanAbsoluteError, MeanSquaredError
from dlzoo.zoo.train.losses.imbalance import Dice, Focal
from dlzoo.zoo.train.losses.loss import Loss

Array = np.ndarray[Any, Any]
#: Outputs [N, K], targets [N, K] -> the loss, both in float64.
Formula = Callable[[Array, Array], float]

SEEDS = st.integers(0, 2**32 - 1)
#: Both sides are float64 and sum up to some hundred terms.
TOLERANCE = 1e-11
WEIGHTS = (0.5, 2.0, 1.0, 0.0, 3.0)


def log_softmax(x_NK: Array) -> Array:
    shifted = x_NK - x_NK.max(1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def sigmoid(x: Array) -> Array:
    result: Array = np.where(x >= 0, 1, np.exp(-np.abs(x))) / (1 + np.exp(-np.abs(x)))
    return result


def weights_of(x_NK: Array) -> Array:
    return np.resize(WEIGHTS, x_NK.shape[1])


def smoothed(t_NK: Array, share: float) -> Array:
    result: Array = (1 - share) * t_NK + share / t_NK.shape[1]
    return result


def binary(x: Array, t: Array, weight: Array | float = 1.0) -> float:
    return float(np.mean(-weight * t * np.log(sigmoid(x)) - (1 - t) * np.log(sigmoid(-x))))


def huber(x: Array, t: Array, delta: float) -> float:
    d = np.abs(x - t)
    return float(np.mean(np.where(d <= delta, d * d / 2, delta * (d - delta / 2))))


def focal(x: Array, t: Array, gamma: float, weight: Array | float = 1.0) -> float:
    log_p = log_softmax(x)
    return float(np.mean(-(weight * t * (1 - np.exp(log_p)) ** gamma * log_p).sum(1)))


def binary_focal(x: Array, t: Array, gamma: float, alpha: tuple[float, float]) -> float:
    p = sigmoid(x)
    positive = -alpha[0] * t * (1 - p) ** gamma * np.log(p)
    negative = -alpha[1] * (1 - t) * p**gamma * np.log(1 - p)
    return float(np.mean(positive + negative))


def dice(p: Array, t: Array, smooth: float) -> float:
    over = 2 * (p * t).sum(1) + smooth
    under = (p * p).sum(1) + (t * t).sum(1) + smooth
    return float(np.mean(1 - over / under))


def rbf_map(x: Array, t: Array, j: float) -> float:
    penalties = -x
    least = np.minimum(penalties.min(1), j)
    total = np.exp(least - j) + np.exp(least[:, None] - penalties).sum(1)
    return float(np.mean((t * penalties).sum(1) + np.log(total) - least))


def per_class(build: Callable[[tuple[float, ...]], Loss]) -> Callable[[int], Loss]:
    return lambda num_classes: build(tuple(float(w) for w in np.resize(WEIGHTS, num_classes)))


#: Name of the case: (the loss for a number of classes, its formula).
CLASSIFICATION: dict[str, tuple[Callable[[int], Loss], Formula]] = {
    "cross-entropy": (
        lambda _: CrossEntropy(),
        lambda x, t: float(np.mean(-(t * log_softmax(x)).sum(1))),
    ),
    "cross-entropy, smoothed and weighted": (
        per_class(lambda w: CrossEntropy(label_smoothing=0.1, class_weights=w)),
        lambda x, t: float(
            np.mean(-(weights_of(x) * smoothed(t, 0.1) * log_softmax(x)).sum(1))
        ),
    ),
    "binary cross-entropy": (lambda _: BinaryCrossEntropy(), binary),
    "binary cross-entropy, one weight": (
        lambda _: BinaryCrossEntropy(positive_weight=3.0),
        lambda x, t: binary(x, t, 3.0),
    ),
    "binary cross-entropy, weight of each class": (
        per_class(lambda w: BinaryCrossEntropy(positive_weight=w)),
        lambda x, t: binary(x, t, weights_of(x)),
    ),
    "mse": (lambda _: MeanSquaredError(), lambda x, t: float(np.mean((x - t) ** 2))),
    "mae": (lambda _: MeanAbsoluteError(), lambda x, t: float(np.mean(np.abs(x - t)))),
    "huber": (lambda _: Huber(delta=0.7), lambda x, t: huber(x, t, 0.7)),
    "focal": (lambda _: Focal(), lambda x, t: focal(x, t, 2.0)),
    "focal, gamma below 1": (lambda _: Focal(gamma=0.5), lambda x, t: focal(x, t, 0.5)),
    "focal, weighted": (
        per_class(lambda w: Focal(gamma=1.5, class_weights=w)),
        lambda x, t: focal(x, t, 1.5, weights_of(x)),
    ),
    "focal, sigmoid": (
        lambda _: Focal(scores="sigmoid"),
        lambda x, t: binary_focal(x, t, 2.0, (1.0, 1.0)),
    ),
    "focal, sigmoid and alpha": (
        lambda _: Focal(scores="sigmoid", alpha=0.25),
        lambda x, t: binary_focal(x, t, 2.0, (0.25, 0.75)),
    ),
    "dice": (lambda _: Dice(), lambda x, t: dice(np.exp(log_softmax(x)), t, 1.0)),
    "dice, sigmoid": (
        lambda _: Dice(scores="sigmoid", smooth=0.5),
        lambda x, t: dice(sigmoid(x), t, 0.5),
    ),
    "rbf-map": (lambda _: RbfMap(rubbish_penalty=1.5), lambda x, t: rbf_map(x, t, 1.5)),
}


def drawn(num: int, num_classes: int, seed: int, kind: str) -> tuple[Tensor, Tensor, Array]:
    """Outputs, targets as the loss takes them, and the same as floats [N, K]."""
    rng = np.random.default_rng(seed)
    x_NK = torch.from_numpy(rng.normal(size=(num, num_classes)) * 3).requires_grad_()
    if kind == "classes":
        targets = torch.from_numpy(rng.integers(num_classes, size=num))
        return x_NK, targets, np.eye(num_classes)[targets.numpy()]
    mixed = torch.from_numpy(rng.dirichlet(np.full(num_classes, 0.5), size=num))
    return x_NK, mixed, mixed.numpy()


@pytest.mark.parametrize("case", CLASSIFICATION)
@pytest.mark.parametrize("kind", ["classes", "soft"])
@settings(max_examples=6, deadline=None)
@given(num=st.integers(1, 5), num_classes=st.integers(1, 7), seed=SEEDS)
def test_values_and_gradients(
    case: str, kind: str, num: int, num_classes: int, seed: int
) -> None:
    build, formula = CLASSIFICATION[case]
    loss = build(num_classes)
    x_NK, targets, t_NK = drawn(num, num_classes, seed, kind)
    value = loss(x_NK, targets)
    expected = formula(x_NK.detach().numpy(), t_NK)
    assert value.shape == ()
    assert abs(value.item() - expected) <= TOLERANCE * (1 + abs(expected))
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), (x_NK,))


@pytest.mark.parametrize("case", CLASSIFICATION)
@pytest.mark.parametrize("size", [1e4, 100.0, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_outputs_give_finite_losses_and_gradients(
    case: str, size: float, dtype: torch.dtype
) -> None:
    loss = CLASSIFICATION[case][0](4)
    rows = [[size, -size, 0.0, size], [size, size, size, size], [-size, -size, size, 0.0]]
    for targets in (torch.tensor([0, 1, 2]), torch.tensor([[0.0, 0.5, 0.5, 0.0]] * 3)):
        outputs = torch.tensor(rows, dtype=dtype, requires_grad=True)
        value = loss(outputs, targets)
        assert torch.isfinite(value), (case, value)
        assert value.dtype == torch.float32
        (gradient,) = torch.autograd.grad(value, outputs)
        assert torch.isfinite(gradient).all(), (case, gradient)


@pytest.mark.parametrize("case", [c for c in CLASSIFICATION if c != "rbf-map"])
def test_further_axes_are_more_samples(case: str) -> None:
    loss = CLASSIFICATION[case][0](3)
    rng = np.random.default_rng(3)
    outputs = torch.from_numpy(rng.normal(size=(2, 3, 4, 5)))
    classes = torch.from_numpy(rng.integers(3, size=(2, 4, 5)))
    soft = torch.from_numpy(rng.dirichlet(np.ones(3), size=(2, 4, 5))).movedim(-1, 1)
    for targets in (classes, soft):
        got = loss(outputs, targets).item()
        if case.startswith("dice"):  # overlaps of whole samples
            one_by_one = [
                loss(outputs[n : n + 1], targets[n : n + 1]).item() for n in range(2)
            ]
            expected = sum(one_by_one) / 2
        else:
            flat = targets.movedim(1, -1).reshape(-1, 3) if targets is soft else classes
            flat = flat if targets is soft else flat.reshape(-1)
            expected = loss(outputs.movedim(1, -1).reshape(-1, 3), flat).item()
        assert got == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("case", CLASSIFICATION)
def test_loss_of_a_batch_is_the_mean_over_its_parts(case: str) -> None:
    loss = CLASSIFICATION[case][0](5)
    for kind in ("classes", "soft"):
        x_NK, targets, _ = drawn(6, 5, 1, kind)
        parts = [
            loss(x, t).item() for x, t in zip(x_NK.split(2), targets.split(2), strict=True)
        ]
        assert loss(x_NK, targets).item() == pytest.approx(np.mean(parts), rel=TOLERANCE)
