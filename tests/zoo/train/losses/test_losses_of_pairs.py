"""Losses of pairs: each against its formula in float64 NumPy, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlzoo.errors import ArgumentError
from dlzoo.zoo.train.losses.embeddings import Contrastive, Triplet
from dlzoo.zoo.train.losses.loss import Loss

Array = np.ndarray[Any, Any]

SEEDS = st.integers(0, 2**32 - 1)
#: Both sides are float64 and sum up to some hundred terms.
TOLERANCE = 1e-11


def distances(x_ND: Array) -> Array:
    result: Array = np.sqrt(((x_ND[:, None] - x_ND[None]) ** 2).sum(2))
    return result


def contrastive(x_ND: Array, classes: Array, margin: float) -> float:
    d = distances(x_ND)
    losses = [
        (d[i, j] ** 2 if classes[i] == classes[j] else max(0.0, margin - d[i, j]) ** 2) / 2
        for i in range(len(x_ND))
        for j in range(i + 1, len(x_ND))
    ]
    return float(np.mean(losses)) if losses else 0.0


def triplet(x_ND: Array, classes: Array, margin: float, mining: str) -> float:
    d = distances(x_ND)
    everyone = range(len(x_ND))
    losses = []
    for a in everyone:
        positives = [i for i in everyone if i != a and classes[i] == classes[a]]
        negatives = [i for i in everyone if classes[i] != classes[a]]
        if not (positives and negatives):
            continue
        pairs = [(p, n) for p in positives for n in negatives]
        if mining == "hard":
            pairs = [(max(positives, key=d[a].item), min(negatives, key=d[a].item))]
        if mining == "semi-hard":
            pairs = []
            for p in positives:
                farther = [n for n in negatives if d[a, n] > d[a, p]]
                nearest = min(farther, key=d[a].item) if farther else None
                farthest = max(negatives, key=d[a].item)
                pairs.append((p, farthest if nearest is None else nearest))
        losses += [max(0.0, d[a, p] - d[a, n] + margin) for p, n in pairs]
    return float(np.mean(losses)) if losses else 0.0


PAIRS: dict[str, tuple[Loss, Callable[[Array, Array], float]]] = {
    "contrastive": (Contrastive(margin=2.0), lambda x, c: contrastive(x, c, 2.0)),
    **{
        f"triplet, {mining}": (
            Triplet.model_validate({"margin": 0.5, "mining": mining}),
            lambda x, c, mining=mining: triplet(x, c, 0.5, mining),
        )
        for mining in ("all", "hard", "semi-hard")
    },
}


@pytest.mark.parametrize("case", PAIRS)
@settings(max_examples=25, deadline=None)
@given(
    num=st.integers(1, 7),
    num_features=st.integers(1, 4),
    num_classes=st.integers(1, 3),
    seed=SEEDS,
)
def test_values_and_gradients_of_pairs(
    case: str, num: int, num_features: int, num_classes: int, seed: int
) -> None:
    loss, formula = PAIRS[case]
    rng = np.random.default_rng(seed)
    x_ND = torch.from_numpy(rng.normal(size=(num, num_features))).requires_grad_()
    targets = torch.from_numpy(rng.integers(num_classes, size=num))
    value = loss(x_ND, targets)
    expected = formula(x_ND.detach().numpy(), targets.numpy())
    assert abs(value.item() - expected) <= TOLERANCE * (1 + expected)
    (gradient,) = torch.autograd.grad(value, x_ND)
    # One direction, so small a step that no triplet changes; its error is that of rounding.
    direction = torch.from_numpy(rng.normal(size=(num, num_features)))
    moved = [loss(x_ND.detach() + step * direction, targets).item() for step in (1e-7, -1e-7)]
    slope = (moved[0] - moved[1]) / 2e-7
    assert (gradient * direction).sum().item() == pytest.approx(slope, abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("case", PAIRS)
def test_equal_and_extreme_features_give_finite_gradients(case: str) -> None:
    loss = PAIRS[case][0]
    for rows in ([[1.0, 2.0]] * 4, [[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [0.0, 0.0]]):
        outputs = torch.tensor(rows, requires_grad=True)
        value = loss(outputs, torch.tensor([0, 0, 1, 1]))
        (gradient,) = torch.autograd.grad(value, outputs)
        assert torch.isfinite(value) and torch.isfinite(gradient).all()


@pytest.mark.parametrize("case", PAIRS)
def test_without_any_pair_the_loss_is_zero_and_has_a_gradient(case: str) -> None:
    outputs = torch.ones(1, 3, requires_grad=True)
    value = PAIRS[case][0](outputs, torch.tensor([2]))
    assert value.item() == 0
    (gradient,) = torch.autograd.grad(value, outputs)
    assert not gradient.any()


@pytest.mark.parametrize("loss", [Contrastive(), Triplet()], ids=lambda loss: str(loss.name))
def test_losses_of_pairs_refuse_soft_labels(loss: Loss) -> None:
    with pytest.raises(ArgumentError) as caught:
        loss(torch.ones(2, 3), torch.ones(2, 3) / 3)
    assert str(caught.value) == (
        f"Loss {loss.name}: got targets of type float32 and shape [2, 3], expected one class a "
        "sample (int64 [2]); leave out mixup, cutmix and mosaic, and multi-label data."
    )
    with pytest.raises(
        ArgumentError, match=r"outputs of shape \[2, 3, 4\], expected \[samples"
    ):
        loss(torch.ones(2, 3, 4), torch.tensor([0, 1]))
