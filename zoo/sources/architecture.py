"""A network by name with the weights it begins training with, and what goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from dlzoo.errors import ArgumentError, describe_exception
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.registry import Card, Preprocessing
from dlzoo.zoo.sources.factory import source_from_factory
from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.library import LIBRARIES, source_from_library
from dlzoo.zoo.sources.source import SourceOptions


@dataclass(frozen=True)
class Architecture:
    """A network to be trained, and the facts that its bundle will state."""

    network: nn.Module
    #: How its published weights, or its paper, take images.
    preprocessing: Preprocessing
    min_image_size: tuple[int, int] | None
    card: dict[str, Any]
    rho2_limit: float
    rhomax_limit: float
    limit_reason: str


def card_of(model: str) -> Card | None:
    """The card of a model of the zoo; None for any other model.

    Raises:
        UnknownModelError: it looks like a name of the zoo and is not one.
    """
    return None if ":" in model else get_card(model)


def build_architecture(
    model: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    arguments: Mapping[str, Any],
    seed: int,
) -> Architecture:
    """Build a network with weights drawn by its own scheme.

    Args:
        model: a name of the zoo, ``package.module:factory``, ``file.py:factory``, or a library's.
        num_classes: scores to give.
        input_shape: (channels, height, width).
        arguments: of a zoo model's builder.
        seed: draws the weights.

    Raises:
        ArgumentError: the builder does not take the arguments, or gives another number of scores.
        UnknownModelError: no model has that name.
    """
    card = card_of(model)
    if card is None:
        return _own_network(model, num_classes, input_shape, arguments, seed)
    if (
        min(input_shape[1] - card.min_image_size[0], input_shape[2] - card.min_image_size[1])
        < 0
    ):
        least = " x ".join(map(str, card.min_image_size))
        raise ArgumentError(
            f"{model} got images of {input_shape[1]} x {input_shape[2]}, expected at least {least}. "
            "Write a larger data.image_size."
        )
    given = {"num_classes": num_classes, **arguments}
    if card.input_shape[0] != input_shape[0] and "num_channels" not in given:
        given["num_channels"] = input_shape[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = card.builder(**given)
        except TypeError as error:
            raise ArgumentError(
                f"{model} does not take the arguments {', '.join(sorted(given))}: "
                f"{describe_exception(error)}. Correct [model.arguments], or data.color."
            ) from None
    return Architecture(
        network=network,
        preprocessing=card.preprocessing,
        min_image_size=card.min_image_size,
        card={
            "family": card.family,
            "summary": card.summary,
            "paper": asdict(card.paper),
            "num_parameters": sum(p.numel() for p in network.parameters()),
            "num_classes": num_classes,
        },
        rho2_limit=card.rho2_limit,
        rhomax_limit=card.rhomax_limit,
        limit_reason=card.limit_reason,
    )


def _own_network(
    model: str,
    num_classes: int,
    input_shape: tuple[int, int, int],
    arguments: Mapping[str, Any],
    seed: int,
) -> Architecture:
    if arguments:
        raise ArgumentError(
            f"[model.arguments] got {', '.join(arguments)}, which only models of the zoo take. "
            "Put them into the function that builds the network."
        )
    prefix, _, name = model.rpartition(":")
    shape = InputSpec(name="input", shape=(1, *input_shape))
    if prefix in LIBRARIES:
        options = SourceOptions(
            weights="random", seed=seed, inputs=(shape,), num_classes=num_classes
        )
        source = source_from_library(prefix, name, options)
    else:
        source = source_from_factory(prefix, name, SourceOptions(seed=seed, inputs=(shape,)))
    network = source.network
    with torch.no_grad():
        outputs = network.eval()(torch.zeros(2, *input_shape))
    if outputs.dim() == 2 and outputs.shape[1] != num_classes:
        raise ArgumentError(
            f"{model} gives {outputs.shape[1]} scores, and the data have {num_classes} classes. "
            "Let the function build a network for as many."
        )
    return Architecture(
        network=network,
        preprocessing=source.preprocessing or _plain(input_shape),
        min_image_size=source.min_image_size,
        card={**source.card, "num_classes": num_classes},
        rho2_limit=source.rho2_limit,
        rhomax_limit=source.rhomax_limit,
        limit_reason=source.limit_reason,
    )


def _plain(input_shape: tuple[int, int, int]) -> Preprocessing:
    channels, height, width = input_shape
    return Preprocessing(
        color="RGB" if channels == 3 else "L",
        resize_size=None,
        crop_size=(height, width),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
