"""Heads: scores from logits, and scores from distances."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.layers.head import with_head
from dlzoo.zoo.layers.layer_registry import get_layer
from dlzoo.zoo.layers.rbf import RBFOutput

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 8))


@settings(max_examples=20, deadline=None)
@given(shape=SHAPES, seed=SEEDS, scale=st.sampled_from([1.0, 30.0]))
def test_softmax_head(
    shape: tuple[int, int], seed: int, scale: float, against_formula: Callable[..., None]
) -> None:
    def formula(x: Array, _: object) -> Array:
        powers = np.exp(x - x.real.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    against_formula(get_layer("softmax_head").build(), formula, shape, seed, scale)


@settings(max_examples=20, deadline=None)
@given(shape=SHAPES, seed=SEEDS)
def test_sigmoid_head(
    shape: tuple[int, int], seed: int, against_formula: Callable[..., None]
) -> None:
    head = get_layer("sigmoid_head").build()
    against_formula(head, lambda x, _: 1 / (1 + np.exp(-x)), shape, seed)


@settings(max_examples=20, deadline=None)
@given(shape=SHAPES, classes=st.integers(1, 5), seed=SEEDS)
def test_rbf_output(
    shape: tuple[int, int], classes: int, seed: int, against_formula: Callable[..., None]
) -> None:
    rng = np.random.default_rng(seed)
    codes_KD = torch.from_numpy(rng.choice([-1.0, 1.0], size=(classes, shape[1])))

    def formula(x: Array, values: Any) -> Array:
        difference = x[:, None] - values["codes"]
        return -(difference * difference).sum(2)

    against_formula(RBFOutput(codes_KD), formula, shape, seed)


def test_rbf_output_is_largest_for_the_nearest_code() -> None:
    codes_KD = torch.eye(4)
    logits_NK = RBFOutput(codes_KD)(codes_KD * 0.9)
    assert logits_NK.argmax(1).tolist() == [0, 1, 2, 3]
    assert (logits_NK < 0).all()
    assert (RBFOutput(codes_KD)(codes_KD).diagonal() == 0).all()


def test_with_head_scores_a_classifier() -> None:
    network = nn.Linear(3, 5).eval()
    x_NC = torch.randn(2, 3)
    assert with_head(network, "logits") is network
    softmax, sigmoid = with_head(network, "softmax"), with_head(network, "sigmoid")
    assert torch.equal(softmax(x_NC), network(x_NC).softmax(1))
    assert torch.equal(sigmoid(x_NC), network(x_NC).sigmoid())
    assert not softmax.training
    assert with_head(network.train(), "softmax").training


def test_with_head_refuses_another() -> None:
    with pytest.raises(ArgumentError) as caught:
        with_head(nn.Identity(), "argmax")
    assert (
        str(caught.value) == "`head` got 'argmax', expected one of logits, softmax, sigmoid."
    )
