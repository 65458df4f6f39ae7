"""Optimizers get every number of the settings, and groups are of the right parameters."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.parameter_groups import named_weights, parameter_groups
from dlzoo.zoo.train.losses.penalties import L1Penalty, L2Penalty
from dlzoo.zoo.train.optimize.optimizers import SGD, AdamW, Optimizer, set_learning_rate

KINDS: list[Any] = list(get_args(get_args(Optimizer)[0]))


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)
    ).double()


def gradient_step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer.zero_grad()
    x = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)
    module(x).square().mean().backward()
    optimizer.step()


#: A value of each kind of field that is nowhere the default.
OTHER = {
    "lr": 0.003,
    "weight_decay": 0.007,
    "momentum": 0.6,
    "dampening": 0.25,
    "betas": (0.7, 0.8),
    "eps": 1e-4,
    "amsgrad": True,
    "momentum_decay": 0.02,
    "decoupled_weight_decay": True,
    "alpha": 0.6,
    "centered": True,
    "lr_decay": 0.2,
    "initial_accumulator_value": 0.3,
    "rho": 0.7,
    "lambd": 0.01,
    "etas": (0.4, 1.3),
    "step_sizes": (1e-5, 10.0),
    "beta2_decay": -0.6,
    "d": 1.5,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_every_number_reaches_torch(kind: Any) -> None:
    names = [n for n in kind.model_fields if n in OTHER]
    if kind.__name__ == "Rprop":
        names.remove("weight_decay")
    values = {name: OTHER[name] for name in names}
    made = kind(**values).build(parameter_groups(network()))
    assert type(made).__name__ == kind.__name__
    assert {name: made.defaults[name] for name in names} == values
    untold = set(kind.model_fields) - {*OTHER, "name", "decay_norm_and_bias", "nesterov"}
    assert not untold, untold


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_defaults_are_torchs_and_a_step_lowers_the_loss(kind: Any) -> None:
    module = network()
    made = kind().build(parameter_groups(module))
    expected = getattr(torch.optim, kind.__name__)(module.parameters()).defaults
    ours = {"lr", "momentum", "weight_decay"} if kind is SGD else set()
    for name in set(kind.model_fields) & set(expected) - ours:
        assert made.defaults[name] == expected[name], name
    before = [p.detach().clone() for p in module.parameters()]
    gradient_step(module, made, 0)
    moved = [not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)]
    # A bias before a normalization has no gradient but rounding's.
    assert moved[0] and all(moved[2:])


def test_sgd_with_nesterov_momentum_against_its_formula() -> None:
    weight = nn.Parameter(torch.tensor([[1.0, -2.0], [3.0, 0.5]], dtype=torch.float64))
    module = nn.Module()
    module.weight = weight
    settings = SGD(lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.2)
    optimizer = settings.build(parameter_groups(module))
    w, v = weight.detach().numpy().copy(), np.zeros((2, 2))
    for _ in range(4):
        optimizer.zero_grad()
        (weight**3).sum().backward()
        optimizer.step()
        g = 3 * w**2 + 0.2 * w
        v = 0.5 * v + g
        w = w - 0.1 * (g + 0.5 * v)
    assert np.abs(weight.detach().numpy() - w).max() <= 1e-11 * np.abs(w).max()


def test_norms_and_biases_do_not_decay_unless_asked() -> None:
    module = network()
    groups = parameter_groups(module)
    assert [(len(g["params"]), g["is_weights"], g["lr_scale"]) for g in groups] == [
        (2, True, 1.0),
        (4, False, 1.0),
    ]
    decays = [g["weight_decay"] for g in AdamW(weight_decay=0.3).build(groups).param_groups]
    assert decays == [0.3, 0.0]
    everywhere = AdamW(weight_decay=0.3, decay_norm_and_bias=True).build(groups)
    assert [g["weight_decay"] for g in everywhere.param_groups] == [0.3, 0.3]


def test_learning_rate_is_scaled_by_group() -> None:
    module = network()
    groups = parameter_groups(module, {"0.weight": 0.25, "0.bias": 0.25})
    optimizer = SGD(lr=0.8).build(groups)
    assert [g["lr"] for g in optimizer.param_groups] == [0.2, 0.2, 0.8, 0.8]
    set_learning_rate(optimizer, 0.4)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.1, 0.4, 0.4]
    # A scale must not be lost with a checkpoint.
    other = SGD(lr=0.8).build(groups)
    other.load_state_dict(optimizer.state_dict())
    set_learning_rate(other, 2.0)
    assert [g["lr"] for g in other.param_groups] == [0.5, 0.5, 2.0, 2.0]


@pytest.mark.parametrize(
    ("model", "vectors"),
    [
        ("lenet5", {"s2.coefficient", "c3.bias", "f6.bias"}),
        ("convnext_tiny", {"features.0.1.weight", "features.1.0.layer_scale"}),
        ("vit_b_16", {"class_token", "encoder.ln.weight", "conv_proj.bias"}),
        ("densenet121", {"features.norm0.weight", "features.norm0.bias", "classifier.bias"}),
    ],
)
def test_weights_of_zoo_models(model: str, vectors: set[str]) -> None:
    with torch.device("meta"):
        module = get_card(model).builder()
    weights = dict(named_weights(module))
    everything = dict(module.named_parameters())
    assert vectors <= set(everything) - set(weights)
    layers = (nn.Linear, nn.Conv2d)
    kernels = {f"{n}.weight" for n, m in module.named_modules() if isinstance(m, layers)}
    assert kernels <= set(weights)
    assert all(weight.dim() >= 2 for weight in weights.values())


def test_norms_and_biases_of_several_axes_are_no_weights() -> None:
    module = nn.Sequential(nn.LayerNorm([2, 3, 3]), nn.Linear(1, 4))
    module.register_parameter("relative_position_bias_table", nn.Parameter(torch.ones(9, 4)))
    module.register_parameter("token", nn.Parameter(torch.ones(1, 1, 4)))
    module.register_parameter("position", nn.Parameter(torch.ones(1, 5, 4)))
    assert {name for name, _ in named_weights(module)} == {"1.weight", "position"}


def test_frozen_and_shared_parameters() -> None:
    module = network()
    module.add_module("again", module[3])
    module[0].requires_grad_(False)
    groups = parameter_groups(module)
    grouped = [id(p) for group in groups for p in group["params"]]
    expected = [module[1].weight, module[1].bias, module[3].weight, module[3].bias]
    assert sorted(grouped) == sorted(id(p) for p in expected)
    with pytest.raises(ArgumentError) as caught:
        parameter_groups(module.requires_grad_(False))
    assert str(caught.value) == (
        "Sequential: got no parameters to train, expected at least one; freeze fewer stages."
    )
    with pytest.raises(ArgumentError, match="run the network once on a batch first"):
        parameter_groups(nn.Sequential(nn.LazyLinear(3)))


@pytest.mark.parametrize(
    "values",
    [
        {"name": "sgd", "lr": 0.0},
        {"name": "sgd", "momentum": 1.0},
        {"name": "sgd", "momentum": 0.0, "nesterov": True},
        {"name": "sgd", "dampening": 0.1, "nesterov": True},
        {"name": "adamw", "betas": [0.9, 1.0]},
        {"name": "adam", "eps": 0.0},
        {"name": "rprop", "weight_decay": 0.1},
        {"name": "lbfgs"},
    ],
    ids=str,
)
def test_numbers_out_of_bounds_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[Optimizer](Optimizer).validate_python(values)


# -- penalties -------------------------------------------------------------------------------------


def test_penalties_against_their_formulas() -> None:
    module = network()
    weights = [module[0].weight, module[3].weight]
    arrays = [w.detach().numpy() for w in weights]
    for penalty, expected in (
        (L1Penalty(strength=0.3), 0.3 * sum(np.abs(a).sum() for a in arrays)),
        (L2Penalty(strength=0.3), 0.15 * sum((a * a).sum() for a in arrays)),
    ):
        value = penalty(module)
        assert value.item() == pytest.approx(expected, rel=1e-12)
        module.zero_grad()
        value.backward()
        slope = np.sign if penalty.name == "l1" else (lambda a: a)
        for weight, array in zip(weights, arrays, strict=True):
            assert weight.grad is not None
            np.testing.assert_allclose(weight.grad.numpy(), 0.3 * slope(array), rtol=1e-12)
        assert module[1].weight.grad is None and module[3].bias.grad is None


def test_l2_penalty_is_sgds_weight_decay() -> None:
    results = []
    for is_penalty in (True, False):
        torch.manual_seed(1)
        module = network()
        decay = 0.0 if is_penalty else 0.2
        optimizer = SGD(lr=0.1, weight_decay=decay).build(parameter_groups(module))
        x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
        for _ in range(3):
            optimizer.zero_grad()
            loss = module(x).square().mean()
            if is_penalty:
                loss = loss + L2Penalty(strength=0.2)(module)
            loss.backward()
            optimizer.step()
        results.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    torch.testing.assert_close(*results, rtol=1e-11, atol=1e-13)


def test_penalty_of_a_network_without_weights_is_zero() -> None:
    assert L1Penalty(strength=1.0)(nn.BatchNorm2d(3)).item() == 0
    frozen = nn.Linear(2, 2).requires_grad_(False)
    assert L2Penalty(strength=1.0)(frozen).item() == 0
