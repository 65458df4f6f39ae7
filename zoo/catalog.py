"""The models of the zoo by name: their cards, and networks built from them."""

from __future__ import annotations

import difflib
import pkgutil
from functools import cache
from importlib import import_module
from typing import Any

from torch import nn

from dlzoo.errors import UnknownModelError
from dlzoo.zoo import models
from dlzoo.zoo.registry import _CARDS, Card
from dlzoo.zoo.weights import build_with_weights


@cache
def _load_architectures() -> None:
    """Import every file under ``zoo/models``, so that all models are registered."""
    for module in pkgutil.iter_modules(models.__path__):
        import_module(f"{models.__name__}.{module.name}")


def list_models() -> list[Card]:
    """All cards, by family in the order of their papers, then by size and name."""
    _load_architectures()
    first_year: dict[str, int] = {}
    for card in _CARDS.values():
        year = first_year.get(card.family, card.paper.year)
        first_year[card.family] = min(year, card.paper.year)
    return sorted(
        _CARDS.values(),
        key=lambda c: (first_year[c.family], c.family, c.paper.year, c.num_parameters or 0),
    )


def get_card(name: str) -> Card:
    """The card of that name.

    Raises:
        UnknownModelError: there is no such model; similar names are suggested.
    """
    _load_architectures()
    if name in _CARDS:
        return _CARDS[name]
    near = difflib.get_close_matches(name, _CARDS, n=3)
    offer = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    raise UnknownModelError(
        f'No model is named {name!r}.{offer} Run "dlzoo models" to see every name.'
    )


def build_model(
    name: str, *, weights: str = "auto", seed: int = 0, **builder_arguments: Any
) -> nn.Module:
    """Build a zoo model in eval mode, with weights.

    Args:
        name: a name from :func:`list_models`.
        weights: ``auto`` (published weights if they are in the cache, otherwise random),
            ``random``, the name of published weights such as ``imagenet`` (downloaded once),
            or the path of a ``.safetensors`` or ``.pth`` file.
        seed: draws the random weights.
        builder_arguments: passed to the builder, e.g. ``num_classes=10``.

    Raises:
        UnknownModelError: no model has that name.
        WeightsError: the weights are unavailable or do not fit.
    """
    return build_with_weights(
        get_card(name), weights=weights, seed=seed, **builder_arguments
    ).module
