"""A model of the zoo, by name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dlzoo.errors import ArgumentError
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.data.labels import load_labels
from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.source import ModelSource, SourceOptions, refuse_options
from dlzoo.zoo.weights import build_with_weights


def source_from_zoo(name: str, options: SourceOptions) -> ModelSource:
    """Build a zoo model with its weights.

    Raises:
        UnknownModelError: no model has that name.
        WeightsError: the weights are unavailable or do not fit.
        ArgumentError: the number of classes is below 1.
    """
    card = get_card(name)
    refuse_options(card.name, options, ["inputs"])
    num_classes = options.num_classes or card.num_classes
    arguments: dict[str, Any] = {}
    if options.num_classes is not None:
        if options.num_classes < 1:
            raise ArgumentError(
                f"`num_classes` got {options.num_classes}, expected a number from 1 up. Write "
                "for example `num_classes=10`."
            )
        arguments["num_classes"] = num_classes
    model = build_with_weights(
        card,
        weights=options.weights,
        seed=options.seed,
        progress=options.on_bytes,
        **arguments,
    )
    has_labels = card.labels is not None and num_classes == card.num_classes
    return ModelSource(
        name=card.name,
        network=model.module,
        inputs=(InputSpec(name="input", shape=(1, *card.input_shape)),),
        output_names=("logits",),
        min_image_size=card.min_image_size,
        card={
            "family": card.family,
            "summary": card.summary,
            "paper": asdict(card.paper),
            "num_parameters": sum(p.numel() for p in model.module.parameters()),
            "num_classes": num_classes,
        },
        weights=asdict(model.origin),
        notes=model.notes,
        preprocessing=model.preprocessing,
        labels=load_labels(card.labels) if has_labels and card.labels else None,
        rho2_limit=card.rho2_limit,
        rhomax_limit=card.rhomax_limit,
        limit_reason=card.limit_reason,
    )
