"""What holds for every network of the zoo.

What only shapes decide is asked on the meta device, where nothing is computed.
"""

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dlzoo.errors import ArgumentError, UnknownModelError
from dlzoo.zoo.catalog import get_card, list_models
from dlzoo.zoo.registry import Card

HERE = Path(__file__).parent
#: Written by a script that runs where torchvision does, and is run here for what it defines.
TORCHVISION = json.loads((HERE / "torchvision.json").read_text())
FIXTURE = runpy.run_path(str(HERE / "write_torchvision_fixture.py"))
CARDS = list_models()
PUBLISHED = [(card, weights) for card in CARDS for weights in card.weights]

#: Two orders of summation in float32 were seen to differ by 2e-6 of the largest logit at most,
#: and two images by 2e-2 at least.
NOISE = 2e-5

#: Built with other arguments where values are computed: 4 patches instead of 196.
ARGUMENTS: dict[str, dict[str, Any]] = {"vit_b_16": {"image_size": 32}}

#: Larger siblings, made of the same blocks by the same code as one that is not slow.
SIBLINGS = (
    *("alexnet", "vgg11", "vgg13", "vgg13_bn", "vgg16_bn", "vgg19", "vgg19_bn"),
    *("resnet34", "resnet101", "resnet152"),
    *("resnet32", "resnet44", "resnet56"),
)


def name_of(value: Any) -> str:
    return str(getattr(value, "name", value))


every_model = pytest.mark.parametrize("card", CARDS, ids=name_of)


def on_meta(card: Card, **arguments: Any) -> nn.Module:
    with torch.device("meta"):
        return card.builder(**arguments).eval()


def run_on_meta(network: nn.Module, *shape: int) -> Tensor:
    with torch.no_grad():
        output = network(torch.empty(shape, device="meta"))
    assert isinstance(output, Tensor), "evaluation gives one output"
    return output


# -- cards ---------------------------------------------------------------------------------------


def test_every_model_of_the_plan_is_there() -> None:
    expected = {
        *("lenet5", "lenet5_relu", "alexnet_2012", "alexnet"),
        *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
        *("googlenet_2014", "googlenet", "inception_v3", "squeezenet1_1"),
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
        *(f"resnet{depth}" for depth in (20, 32, 44, 56)),
        *("resnet50_gn", "mobilenet_v2", "densenet121", "cspdarknet53"),
        *("convnext_tiny", "vit_b_16"),
    }
    assert expected <= {card.name for card in CARDS}


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("lenet5", 60_000),
        ("lenet5_relu", 61_706),
        ("alexnet_2012", 60_965_224),
        ("alexnet", 61_100_840),
        ("vgg16", 138_357_544),
        ("googlenet_2014", 6_998_552),
        ("googlenet", 6_624_904),
        ("inception_v3", 23_834_568),
        ("resnet50", 25_557_032),
        ("resnet20", 269_722),
        ("mobilenet_v2", 3_504_872),
        ("squeezenet1_1", 1_235_496),
        ("densenet121", 7_978_856),
        ("convnext_tiny", 28_589_128),
        ("resnet50_gn", 25_557_032),
        ("vit_b_16", 86_567_656),
    ],
)
def test_published_parameter_counts(name: str, num_parameters: int) -> None:
    assert get_card(name).num_parameters == num_parameters


@every_model
def test_parameter_count_is_the_cards(card: Card) -> None:
    counted = sum(parameter.numel() for parameter in on_meta(card).parameters())
    assert card.num_parameters in (None, counted)


@every_model
def test_a_card_agrees_with_itself(card: Card) -> None:
    channels, height, width = card.input_shape
    assert card.preprocessing.crop_size == (height, width)
    assert channels == {"RGB": 3, "L": 1}[card.preprocessing.color]
    assert len(card.preprocessing.mean) == len(card.preprocessing.std) == channels
    assert card.min_image_size <= (height, width)
    assert (card.rho2_limit, card.rhomax_limit) == (3.0, 6.0) or card.limit_reason
    assert len({weights.name for weights in card.weights}) == len(card.weights)


@pytest.mark.parametrize(("card", "weights"), PUBLISHED, ids=name_of)
def test_published_weights_are_what_torchvision_names(card: Card, weights: Any) -> None:
    if weights.source == "torchvision":
        assert weights.url.startswith("https://download.pytorch.org/models/")
        assert weights.url.endswith(f"-{weights.sha256[:8]}.pth")
    assert weights.license
    assert 0 < weights.top1_percent < 100


# -- shapes --------------------------------------------------------------------------------------


@every_model
def test_one_output_with_as_many_classes_as_asked(card: Card) -> None:
    assert run_on_meta(on_meta(card), 2, *card.input_shape).shape == (2, card.num_classes)
    assert run_on_meta(on_meta(card, num_classes=7), 2, *card.input_shape).shape == (2, 7)


@every_model
def test_the_smallest_image_is_the_smallest(card: Card) -> None:
    network = on_meta(card)
    channels, (height, width) = card.input_shape[0], card.min_image_size
    assert run_on_meta(network, 1, channels, height, width).shape == (1, card.num_classes)
    for smaller in ((height - 1, width), (height, width - 1)):
        if min(smaller) > 0:
            with pytest.raises((RuntimeError, ArgumentError)):
                run_on_meta(network, 1, channels, *smaller)


@pytest.mark.parametrize("name", TORCHVISION["state_dicts"])
def test_state_dict_is_torchvisions(name: str) -> None:
    model, _, heads = name.partition("+")
    arguments = {"aux_logits": True} if heads else {}
    network = on_meta(get_card(model), **arguments)
    assert FIXTURE["digests"](network.state_dict()) == TORCHVISION["state_dicts"][name]


@pytest.mark.parametrize(("card", "weights"), PUBLISHED, ids=name_of)
def test_published_weights_fit_without_their_auxiliary_heads(card: Card, weights: Any) -> None:
    network = on_meta(card, **weights.builder_arguments)
    plain = set(on_meta(card).state_dict())
    if weights.builder_arguments.get("aux_logits"):
        assert set(network.state_dict()) > plain
        network.drop_auxiliary_heads()  # type: ignore[operator]
    assert set(network.state_dict()) == plain


# -- values --------------------------------------------------------------------------------------


class SkipRandomNumbers(TorchFunctionMode):
    """Leaves out what a builder draws: VGG's 138 million normal deviates take seconds."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in (Tensor.normal_, Tensor.uniform_, Tensor.erfinv_):
            return args[0]
        return function(*args, **(kwargs or {}))


def built_with_signal(card: Card, **arguments: Any) -> nn.Module:
    """The network in evaluation, with the fixture's weights, which keep the signal's size."""
    with SkipRandomNumbers(), torch.no_grad():
        network = card.builder(**arguments).eval()
        FIXTURE["fill"](network)
    return network


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(card, id=card.name, marks=[pytest.mark.slow] * (card.name in SIBLINGS))
        for card in CARDS
    ],
)
def card_and_network(request: pytest.FixtureRequest) -> Iterator[tuple[Card, nn.Module]]:
    """One network after the other, each built once."""
    card = request.param
    yield card, built_with_signal(card, **ARGUMENTS.get(card.name, {}))


def images(card: Card) -> Tensor:
    size = [max(32, pixels) for pixels in card.min_image_size]
    if "image_size" in ARGUMENTS.get(card.name, {}):
        size = [ARGUMENTS[card.name]["image_size"]] * 2
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, card.input_shape[0], *size, generator=generator)


def test_a_batch_of_two_is_two_batches_of_one(
    card_and_network: tuple[Card, nn.Module],
) -> None:
    """Samples do not mix, and evaluation draws nothing (dropout is off)."""
    card, network = card_and_network
    x_NCHW = images(card)
    with torch.no_grad():
        together_NK = network(x_NCHW)
        apart_NK = torch.cat([network(x_NCHW[:1]), network(x_NCHW[1:])])
    scale = together_NK.abs().max()
    spread = (together_NK[0] - together_NK[1]).abs().max()
    assert spread > 1e-2 * scale, "the images must matter, or nothing is shown"
    assert (together_NK - apart_NK).abs().max() <= NOISE * scale


def test_every_weight_gets_a_gradient(card_and_network: tuple[Card, nn.Module]) -> None:
    card, network = card_and_network
    network.zero_grad()
    network(images(card)).square().sum().backward()
    without = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    network.zero_grad()
    assert not without


@pytest.mark.parametrize("name", TORCHVISION["logits"])
def test_logits_are_torchvisions(name: str) -> None:
    """On equal weights: no eps, padding, rounding or order differs."""
    size, arguments = FIXTURE["COMPUTED"][name]
    network = built_with_signal(get_card(name), **arguments)
    with torch.no_grad():
        logits_NK = network(FIXTURE["image"](size).float())
    expected = torch.tensor(TORCHVISION["logits"][name])
    assert (logits_NK[:, :4] - expected).abs().max() <= NOISE * logits_NK.abs().max()


@pytest.mark.parametrize(
    "name", ["lenet5", "lenet5_relu", "squeezenet1_1", "googlenet_2014", "mobilenet_v2"]
)
def test_a_seed_decides_the_weights(name: str) -> None:
    def state(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return get_card(name).builder().state_dict()

    one, same, other = state(1), state(1), state(2)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)
    assert all(value.isfinite().all() for value in one.values())


# -- names ---------------------------------------------------------------------------------------


def test_an_unknown_model_gets_near_names() -> None:
    with pytest.raises(UnknownModelError) as caught:
        get_card("resnet51")
    message = str(caught.value)
    assert message.startswith("No model is named 'resnet51'. Did you mean 'resnet5")
    assert message.endswith('? Run "dlzoo models" to see every name.')
