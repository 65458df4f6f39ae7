"""What an export starts from: a network and everything known about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.sources.input_spec import InputSpec

if TYPE_CHECKING:
    from dlzoo.zoo.registry import Preprocessing


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A network, and the facts that its bundle will state."""

    name: str
    network: nn.Module
    inputs: tuple[InputSpec, ...]
    #: One for each tensor that the network gives.
    output_names: tuple[str, ...]
    #: Whether its one output is [N, K]: scores that a head can turn into probabilities.
    gives_scores: bool = True
    #: The smallest height and width that the layers accept, where a card says so.
    min_image_size: tuple[int, int] | None = None
    #: The one batch that it was traced with, of a program that was exported before.
    fixed_batch: int | None = None
    #: Facts for the manifest: family, summary, paper, counts.
    card: dict[str, Any]
    weights: dict[str, Any]
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    #: What the user should know of how it was taken in.
    notes: tuple[str, ...] = ()
    rho2_limit: float = 3.0
    rhomax_limit: float = 6.0
    limit_reason: str = ""

    @property
    def image_input(self) -> InputSpec | None:
        """The input that is an image, where it is the only one of its kind."""
        images = [spec for spec in self.inputs if spec.is_image]
        return images[0] if len(images) == 1 else None


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What the user said about a network, beside its name.

    ``inputs`` are for networks that no card describes, ``default_inputs`` for those of them that
    got none; ``num_classes`` is for networks that are built by name.
    """

    weights: str = "auto"
    seed: int = 0
    inputs: tuple[InputSpec, ...] = ()
    default_inputs: tuple[InputSpec, ...] = ()
    num_classes: int | None = None
    name: str | None = None
    on_bytes: Callable[[int, int], None] | None = None


def refuse_options(model: str, options: SourceOptions, names: Sequence[str]) -> None:
    """Options that a source has no use for are mistakes, not noise.

    Raises:
        ArgumentError: one of them was given.
    """
    given = {
        "inputs": bool(options.inputs),
        "num_classes": options.num_classes is not None,
        "weights": options.weights != "auto",
    }
    for name in names:
        if given[name]:
            raise ArgumentError(
                f"`{name}` does not go with {model}, whose {_WHY[name]}. Leave it out."
            )


_WHY = {
    "inputs": "inputs are known",
    "num_classes": "number of classes is part of its code",
    "weights": "weights come with it",
}
