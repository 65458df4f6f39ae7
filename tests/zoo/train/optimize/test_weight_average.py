"""The moving average against its formula, and what a checkpoint needs of it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from dlzoo.errors import CheckpointMismatchError
from dlzoo.zoo.train.optimize.weight_average import WeightAverageSettings


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


def change(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    module.train()(torch.randn(2, 2, 4, 4, generator=generator))


@settings(max_examples=20, deadline=None)
@given(
    decay=st.sampled_from([0.0, 0.5, 0.999]),
    warmup=st.booleans(),
    num_steps=st.integers(0, 30),
    seed=st.integers(0, 2**32 - 1),
)
def test_against_the_formula(decay: float, warmup: bool, num_steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    module = network()
    average = WeightAverageSettings(decay=decay, warmup=warmup).start(module)
    floats = [k for k, v in module.state_dict().items() if v.is_floating_point()]
    expected = {k: module.state_dict()[k].numpy().astype(np.float64).copy() for k in floats}
    for n in range(num_steps):
        change(module, generator)
        average.update(module)
        d = min(decay, (1 + n) / (10 + n)) if warmup else decay
        for k in floats:
            expected[k] = d * expected[k] + (1 - d) * module.state_dict()[k].numpy()
    got = average.state_dict()
    assert set(got) == set(module.state_dict())
    for k in floats:
        # Each step rounds to float32 a few times.
        size = 1 + np.abs(expected[k]).max()
        assert (
            np.abs(got[k].numpy() - expected[k]).max() <= 2**-24 * 4 * (num_steps + 1) * size
        )
    assert got["1.num_batches_tracked"].item() == num_steps


def test_module_gets_the_average_and_its_own_weights_back() -> None:
    module = network()
    average = WeightAverageSettings(decay=0.9).start(module)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        change(module, generator)
        average.update(module)
    own = copy.deepcopy(module.state_dict())
    with pytest.raises(KeyError), average.applied_to(module):
        for name, value in module.state_dict().items():
            assert torch.equal(value, average.state_dict()[name])
        assert not torch.equal(module[0].weight, own["0.weight"])
        raise KeyError
    assert all(torch.equal(value, own[name]) for name, value in module.state_dict().items())


def test_goes_on_bit_by_bit_from_a_file() -> None:
    module = network()
    how = WeightAverageSettings(decay=0.99)
    average = how.start(module)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        change(module, generator)
        average.update(module)
    resumed = how.start(network())
    resumed.load(load(save(average.tensors())))
    for _ in range(2):
        change(module, generator)
        average.update(module)
        resumed.update(module)
    assert resumed.decay() == average.decay() == 7 / 16
    assert all(torch.equal(v, resumed.tensors()[k]) for k, v in average.tensors().items())


def test_another_networks_average_is_refused() -> None:
    average = WeightAverageSettings().start(network())
    with pytest.raises(CheckpointMismatchError) as caught:
        average.load(WeightAverageSettings().start(nn.Linear(2, 2)).tensors())
    assert str(caught.value) == (
        "Average of the weights: 11 tensors differ from this network's (0.bias is the first), "
        "expected those of the same network; resume with the run's own recipe."
    )
    other = average.tensors() | {"3.bias": torch.zeros(4)}
    with pytest.raises(
        CheckpointMismatchError,
        match=r"1 tensors differ from this network's \(3.bias is the first",
    ):
        average.load(other)
