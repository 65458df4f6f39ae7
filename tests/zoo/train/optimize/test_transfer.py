"""Trained weights with another head, frozen stages, and learning rates by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from dlzoo.errors import ArgumentError, CheckpointMismatchError
from dlzoo.zoo.catalog import get_card, list_models
from dlzoo.zoo.train.optimize.optimizers import SGD
from dlzoo.zoo.train.optimize.transfer import (
    Transfer,
    find_heads,
    freeze,
    keep_frozen_in_eval,
    layer_lr_scales,
    load_transfer,
)

MODELS = [card.name for card in list_models()]
#: With auxiliary heads.
BUILDER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": True},
    "googlenet_2014": {"aux_logits": True},
    "inception_v3": {"aux_logits": True},
}


def on_meta(model: str, **arguments: Any) -> nn.Module:
    with torch.device("meta"):
        return get_card(model).builder(**arguments)


def has_auxiliary(name: str) -> bool:
    return "aux" in name.lower()


def shapes(state_dict: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state_dict.items()}


@pytest.mark.parametrize("model", MODELS)
def test_every_zoo_model_loads_weights_of_other_classes(model: str) -> None:
    """The heads are what the number of classes changes, and nothing else."""
    arguments = BUILDER_ARGUMENTS.get(model, {})
    trained = on_meta(model, **arguments)
    module = on_meta(model, num_classes=7, **arguments)
    heads = find_heads(module)
    assert find_heads(trained, get_card(model).num_classes) == heads
    assert [has_auxiliary(head) for head in heads] == [False, *[True] * (len(heads) - 1)]
    ours, others = shapes(trained.state_dict()), shapes(module.state_dict())
    changed = [key for key in ours if ours[key] != others[key]]
    assert {key.rpartition(".")[0] for key in changed} == set(heads)
    assert load_transfer(module, trained.state_dict()) == changed
    assert load_transfer(module, module.state_dict()) == []


def test_loaded_values_are_the_trained_ones_and_heads_stay_as_drawn() -> None:
    trained = get_card("googlenet").builder(aux_logits=True)
    module = get_card("googlenet").builder(num_classes=5, aux_logits=True)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    drawn = load_transfer(module, trained.state_dict())
    heads = {"fc", "aux1.fc2", "aux2.fc2"}
    assert set(drawn) == {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}
    for key, value in module.state_dict().items():
        source = before if key in drawn else trained.state_dict()
        assert torch.equal(value, source[key]), key


def test_auxiliary_heads_on_one_side_only() -> None:
    with_heads, without = (on_meta("googlenet", aux_logits=has) for has in (True, False))
    assert load_transfer(without, with_heads.state_dict()) == []
    drawn = load_transfer(with_heads, without.state_dict())
    # Counters are taken as 0, not drawn.
    missing = set(with_heads.state_dict()) - set(without.state_dict())
    assert set(drawn) == {key for key in missing if not key.endswith("num_batches_tracked")}


def test_new_head_where_the_old_one_would_fit_and_where_there_is_none() -> None:
    trained = get_card("lenet5_relu").builder()
    module = get_card("lenet5_relu").builder()
    before = module.output.weight.detach().clone()
    drawn = Transfer(new_head=True).load(module, trained.state_dict(), "digits.safetensors")
    assert drawn == ["output.weight", "output.bias"]
    assert torch.equal(module.output.weight, before)
    assert torch.equal(module.f6.weight, trained.f6.weight)
    rest = {k: v for k, v in trained.state_dict().items() if not k.startswith("output")}
    assert load_transfer(module, rest) == drawn


def test_half_a_head_is_not_kept() -> None:
    class WithScale(nn.Linear):
        def __init__(self, num_classes: int) -> None:
            super().__init__(3, num_classes)
            self.scale = nn.Parameter(torch.ones(1))

    drawn = load_transfer(
        nn.Sequential(WithScale(4)), nn.Sequential(WithScale(5)).state_dict()
    )
    assert drawn == ["0.weight", "0.bias", "0.scale"]


def test_other_differences_are_refused() -> None:
    module = on_meta("lenet5_relu", num_classes=5)
    with pytest.raises(CheckpointMismatchError) as caught:
        load_transfer(
            module, on_meta("lenet5_relu", num_channels=3).state_dict(), subject="a.pth"
        )
    assert str(caught.value) == (
        "a.pth: does not fit. 1 mis-shaped: c1.weight [6, 3, 5, 5] instead of [6, 1, 5, 5]. Pass "
        "weights that were saved from this model."
    )
    with pytest.raises(CheckpointMismatchError, match="1 unexpected: more"):
        load_transfer(module, {**module.state_dict(), "more": torch.ones(1)})
    with pytest.raises(CheckpointMismatchError, match=r"1 missing: c3\.bias"):
        load_transfer(module, {k: v for k, v in module.state_dict().items() if k != "c3.bias"})


def test_a_network_without_a_head_is_refused() -> None:
    with pytest.raises(ArgumentError) as caught:
        find_heads(nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert str(caught.value) == (
        "Sequential: got no linear layer or 1x1 convolution, expected one as the head; pass a "
        "classifier."
    )
    with pytest.raises(ArgumentError, match="1x1 convolution with 9 outputs, expected"):
        find_heads(nn.Linear(3, 4), 9)


# -- frozen stages ---------------------------------------------------------------------------------


def test_freeze_by_name_prefix_and_pattern() -> None:
    module = on_meta("resnet18")
    frozen = freeze(module, ["conv1", "layer[12]", "*.downsample", "fc.bias"])
    names = [name for name, _ in module.named_parameters()]
    expected = [
        name
        for name in names
        if name.startswith(("conv1.", "layer1.", "layer2.")) or ".downsample." in name
    ]
    assert frozen == [*expected, "fc.bias"]
    assert "layer3.0.conv1.weight" not in frozen
    assert not any(p.requires_grad for n, p in module.named_parameters() if n in frozen)


def test_a_pattern_that_names_nothing_is_refused() -> None:
    with pytest.raises(ArgumentError) as caught:
        freeze(on_meta("resnet18"), ["layer9"])
    assert str(caught.value) == (
        "`freeze` got 'layer9', which matches no parameter of ResNet; expected names such as conv1, "
        "bn1, layer1, layer2."
    )


def test_frozen_normalizations_stay_as_they_are_in_training() -> None:
    module = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.BatchNorm2d(2, affine=False)),
        nn.BatchNorm2d(2),
        nn.BatchNorm2d(2, affine=False),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    how = Transfer(freeze=("0",))
    groups = how.parameter_groups(module)
    assert sum(len(group["params"]) for group in groups) == 4
    module.train()
    how.after_train_mode(module)
    assert keep_frozen_in_eval(module) == ["0.1", "0.2"]
    before = {k: v.clone() for k, v in module.state_dict().items()}
    optimizer = SGD(lr=0.1, weight_decay=0.1).build(groups)
    module(torch.randn(4, 1, 4, 4)).square().sum().backward()
    optimizer.step()
    changed = {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    assert not {k for k in changed if k.startswith("0.")}
    assert {"1.running_mean", "2.running_mean", "4.weight"} <= changed
    with pytest.raises(ArgumentError, match="expected at least one; freeze fewer stages"):
        Transfer(freeze=("*",)).parameter_groups(module)


# -- learning rates by layer -----------------------------------------------------------------------

#: The papers' counts of layers, or of stem, blocks and head.
NUM_LAYERS = {
    "lenet5_relu": 5,
    "alexnet": 8,
    "vgg11": 11,
    "vgg16_bn": 16,
    "googlenet": 13,
    "resnet18": 1 + 8 + 1,
    "resnet50": 1 + 16 + 1,
    "squeezenet1_1": 10,
    "mobilenet_v2": 20,
    "cspdarknet53": 1 + 5 + 1,
    "vit_b_16": 1 + 12 + 1,
    # Three layers between stages.
    "convnext_tiny": 1 + 18 + 3 + 1,
}


@pytest.mark.parametrize("model", MODELS)
def test_scales_fall_from_the_head_to_the_input(model: str) -> None:
    module = on_meta(model, **BUILDER_ARGUMENTS.get(model, {}))
    scales = layer_lr_scales(module, 0.5)
    parameters = dict(module.named_parameters())
    assert set(scales) == set(parameters)
    levels = sorted(set(scales.values()), reverse=True)
    assert levels == [0.5**n for n in range(len(levels))]
    if model in NUM_LAYERS:
        assert len(levels) == NUM_LAYERS[model]
    main = [name for name in parameters if not has_auxiliary(name)]
    assert all(scales[name] == 1 for name in parameters if name not in main)
    head = find_heads(module)[0]
    if f"{head}.weight" in scales:
        assert scales[f"{head}.weight"] == scales[f"{head}.bias"] == 1
    inner = [scales[name] for name in main if "." in name]
    assert inner == sorted(inner) and inner[0] == levels[-1]


def test_a_norm_belongs_to_the_layer_before_it_and_a_token_to_the_one_after() -> None:
    scales = layer_lr_scales(on_meta("resnet18"), 0.5)
    assert scales["bn1.weight"] == scales["conv1.weight"] == 0.5**9
    assert scales["layer4.1.bn2.bias"] == scales["layer4.1.conv1.weight"] == 0.5
    scales = layer_lr_scales(on_meta("vit_b_16"), 0.5)
    assert scales["class_token"] == scales["conv_proj.weight"] == 0.5**13
    first_block = scales["encoder.layers.encoder_layer_0.mlp.0.weight"]
    assert scales["encoder.pos_embedding"] == first_block == 0.5**12
    assert scales["encoder.ln.weight"] == 0.5


def test_groups_have_the_rates_of_their_layers() -> None:
    module = get_card("lenet5_relu").builder()
    optimizer = SGD(lr=0.8).build(Transfer(layer_lr_decay=0.5).parameter_groups(module))
    rate_of = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    rates = [rate_of[id(module.get_parameter(f"{n}.weight"))] for n in ("c1", "f6", "output")]
    assert rates == [0.05, 0.4, 0.8]


def test_bounds() -> None:
    with pytest.raises(ValidationError):
        Transfer(layer_lr_decay=1.1)
    with pytest.raises(ValidationError):
        Transfer(layer_lr_decay=0.0)
