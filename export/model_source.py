"""What an export starts from: a network and everything known about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from dlzoo.errors import ArgumentError

if TYPE_CHECKING:
    from dlzoo.zoo.registry import Preprocessing


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A network in eval mode, and the facts that its bundle will state."""

    name: str
    network: nn.Module
    #: (channels, height, width) of one sample.
    input_shape: tuple[int, int, int]
    #: The smallest height and width that the layers accept.
    min_image_size: tuple[int, int]
    #: Facts for the manifest: family, summary, paper, counts.
    card: dict[str, Any]
    weights: dict[str, Any]
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None
    rho2_limit: float = 3.0
    rhomax_limit: float = 6.0
    limit_reason: str = ""


def source_from_zoo(
    name: str,
    *,
    weights: str,
    seed: int,
    on_bytes: Callable[[int, int], None] | None = None,
) -> ModelSource:
    """Build a zoo model with its weights.

    Raises:
        UnknownModelError: no model has that name.
        WeightsError: the weights cannot be had or do not fit.
    """
    from dlzoo.zoo.data.labels import load_labels
    from dlzoo.zoo.registry import get_card
    from dlzoo.zoo.weights import build_with_weights

    card = get_card(name)
    model = build_with_weights(card, weights=weights, seed=seed, progress=on_bytes)
    return ModelSource(
        name=card.name,
        network=model.module,
        input_shape=card.input_shape,
        min_image_size=card.min_image_size,
        card={
            "family": card.family,
            "summary": card.summary,
            "paper": asdict(card.paper),
            "num_parameters": sum(p.numel() for p in model.module.parameters()),
            "num_classes": card.num_classes,
        },
        weights=asdict(model.origin),
        preprocessing=model.preprocessing,
        labels=None if card.labels is None else load_labels(card.labels),
        rho2_limit=card.rho2_limit,
        rhomax_limit=card.rhomax_limit,
        limit_reason=card.limit_reason,
    )


def source_from_module(
    module: nn.Module, *, name: str | None, input_shape: tuple[int, int, int] | None
) -> ModelSource:
    """Take anybody's module, with the weights it has.

    Raises:
        ArgumentError: ``input_shape`` is missing.
        NonFiniteWeightsError: a weight is NaN or Inf.
    """
    from dlzoo.zoo.weights import require_finite_weights, sha256_of_state_dict

    if input_shape is None or len(input_shape) != 3:
        raise ArgumentError(
            f"input_shape of {type(module).__name__} is {input_shape!r}, expected (channels, "
            "height, width). Pass for example input_shape=(3, 224, 224)."
        )
    subject = name or type(module).__name__
    require_finite_weights(module, subject)
    return ModelSource(
        name=name or type(module).__name__.lower(),
        network=module,
        input_shape=input_shape,
        min_image_size=(1, 1),
        card={
            "summary": f"module {type(module).__name__}",
            "num_parameters": sum(p.numel() for p in module.parameters()),
        },
        weights={
            "kind": "module",
            "source": f"the module {type(module).__name__}",
            "sha256": sha256_of_state_dict(module.state_dict()),
            "seed": None,
            "license": None,
        },
        preprocessing=None,
        labels=None,
    )
