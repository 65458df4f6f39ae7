"""``dlzoo info``: everything that is known about one model."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dlzoo.zoo.registry import Card, Preprocessing
    from dlzoo.zoo.summary import ModelSummary


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help='A name from "dlzoo models".')],
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show one model: cost, weights, paper, layers."""
    from dlzoo.cli.console import print_document, print_facts, print_lines, print_table
    from dlzoo.zoo.catalog import get_card
    from dlzoo.zoo.summary import summarize_card

    card = get_card(model)
    summary = summarize_card(card)
    if json:
        facts = {
            "name": card.name,
            "family": card.family,
            "summary": card.summary,
            "paper": asdict(card.paper),
            "input_shape": card.input_shape,
            "min_image_size": card.min_image_size,
            "num_classes": card.num_classes,
            "labels": card.labels,
            "preprocessing": asdict(card.preprocessing),
            "weights": [
                {
                    "name": entry.name,
                    "url": entry.url,
                    "sha256": entry.sha256,
                    "license": entry.license,
                    "source": entry.source,
                    "top1_percent": entry.top1_percent,
                }
                for entry in card.weights
            ],
        }
        print_document({**facts, **asdict(summary)})
        return
    print_facts(_facts(card, summary))
    print_lines([""])
    print_table(
        ("layer", "type", "output", "parameters", "multiply-adds"),
        [
            (
                layer.path or "(itself)",
                layer.type,
                "x".join(map(str, layer.output_shape[1:])) if layer.output_shape else "-",
                f"{layer.num_parameters:,}" if layer.num_parameters else "",
                f"{layer.num_multiply_adds:,}" if layer.num_multiply_adds else "",
            )
            for layer in summary.layers
        ],
        numeric=("parameters", "multiply-adds"),
    )


def _facts(card: Card, summary: ModelSummary) -> list[tuple[str, str]]:
    channels, height, width = card.input_shape
    smallest = "x".join(map(str, card.min_image_size))
    published = [
        f"{entry.name} ({entry.source}, {entry.license}"
        + (f", top-1 {entry.top1_percent:.1f} %)" if entry.top1_percent else ")")
        for entry in card.weights
    ]
    return [
        ("model", f"{card.name}: {card.summary}"),
        ("parameters", f"{summary.num_parameters:,}"),
        ("multiply-adds", f"{summary.num_multiply_adds:,} per sample"),
        (
            "activations",
            f"per sample: {summary.inference_peak_bytes / 1e3:,.0f} kB at once for inference, "
            f"{summary.training_activation_bytes / 1e3:,.0f} kB kept for training",
        ),
        ("input", f"[N, {channels}, {height}, {width}] float32, at least {smallest}"),
        ("preprocessing", _preprocessing_text(card.preprocessing)),
        (
            "output",
            f"{card.num_classes} classes" + (f", labels {card.labels}" if card.labels else ""),
        ),
        ("weights", "; ".join(published) or "none published"),
        ("paper", f"{card.paper.authors}: {card.paper.title}, {card.paper.year}"),
        ("", card.paper.url),
    ]


def _preprocessing_text(preprocessing: Preprocessing) -> str:
    height, width = preprocessing.crop_size
    resize = (
        f"shorter side to {preprocessing.resize_size}, " if preprocessing.resize_size else ""
    )
    return (
        f"{preprocessing.color}, {resize}crop {height}x{width}, "
        f"{preprocessing.interpolation}; mean {_numbers(preprocessing.mean)}, "
        f"std {_numbers(preprocessing.std)}"
    )


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
