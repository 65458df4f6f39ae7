"""Every layer of the zoo by name: its formula, its source, and its form in ONNX.

Layers that ``torch.nn`` has are taken from there; the entry adds what is known about them.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal, TypeVar

from torch import nn

from dlzoo.errors import ArgumentError

LayerKind = Literal["activation", "norm", "pool", "conv", "head"]

#: A layer as an argument of a network: a name from :func:`list_layers`, or a builder.
LayerChoice = str | Callable[..., nn.Module]


@dataclass(frozen=True, kw_only=True)
class LayerCard:
    """Everything known about a layer by name."""

    name: str
    kind: LayerKind
    #: Builder. Activations and heads need no argument; norms take the number of channels first.
    build: Callable[..., nn.Module]
    formula: str
    source: str
    #: Nodes that ``torch.onnx.export`` writes for it at opset 20, in order (checked by tests).
    onnx_nodes: tuple[str, ...]
    #: The single ONNX operator with the same meaning, and the first opset that has it.
    native: tuple[str, int] | None = None
    #: Cost in ONNX, and differences between runtimes.
    onnx: str


_LAYERS: dict[str, LayerCard] = {}
_Builder = TypeVar("_Builder", bound=Callable[..., nn.Module])


def register_layer(
    name: str,
    *,
    kind: LayerKind,
    formula: str,
    source: str,
    onnx_nodes: tuple[str, ...],
    onnx: str,
    native: tuple[str, int] | None = None,
) -> Callable[[_Builder], _Builder]:
    """Register the builder of a layer under a name, as a decorator or for a ``torch.nn`` class.

    The arguments are the fields of :class:`LayerCard`.
    """

    def enter(build: _Builder) -> _Builder:
        assert name not in _LAYERS, f"two layers are named {name}"
        _LAYERS[name] = LayerCard(
            name=name,
            kind=kind,
            build=build,
            formula=formula,
            source=source,
            onnx_nodes=onnx_nodes,
            native=native,
            onnx=onnx,
        )
        return build

    return enter


@cache
def _load_layers() -> None:
    """Import every file under ``zoo/layers``, so that all layers are registered."""
    from dlzoo.zoo import layers

    for module in pkgutil.iter_modules(layers.__path__):
        import_module(f"{layers.__name__}.{module.name}")


def list_layers(kind: LayerKind | None = None) -> list[LayerCard]:
    """All layers, or all of one kind, by kind and name."""
    _load_layers()
    cards = [card for card in _LAYERS.values() if kind in (None, card.kind)]
    return sorted(cards, key=lambda card: (card.kind, card.name))


def get_layer(name: str) -> LayerCard:
    """The layer of that name.

    Example:
        >>> get_layer("mish").build()
        Mish()

    Raises:
        ArgumentError: there is no such layer; similar names are suggested.
    """
    _load_layers()
    if name in _LAYERS:
        return _LAYERS[name]
    near = difflib.get_close_matches(name, _LAYERS, n=3)
    offer = (
        f"Did you mean {' or '.join(repr(n) for n in near)}?"
        if near
        else f"The zoo has {', '.join(_LAYERS)}."
    )
    raise ArgumentError(f"No layer is named {name!r}. {offer}")


def resolve_layer(choice: LayerChoice, kind: LayerKind) -> Callable[..., nn.Module]:
    """The builder of a layer that was chosen by name; a callable is returned unchanged.

    Example:
        >>> resolve_layer("relu", "activation")()
        ReLU()

    Raises:
        ArgumentError: no layer has that name, or it is of another kind.
    """
    if not isinstance(choice, str):
        return choice
    card = get_layer(choice)
    if card.kind != kind:
        names = ", ".join(known.name for known in list_layers(kind))
        raise ArgumentError(
            f"Layer {choice!r} is of kind {card.kind!r}, expected kind {kind!r}: one of {names}."
        )
    return card.build
