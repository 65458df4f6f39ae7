"""``dlzoo models``: every name in the zoo."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer


def models(
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the models of the zoo."""
    from dlzoo.cli.console import print_document, print_lines, print_table
    from dlzoo.zoo.catalog import list_models
    from dlzoo.zoo.registry import Card

    cards = list_models()
    if json:

        def facts(card: Card) -> dict[str, Any]:
            return {
                "name": card.name,
                "family": card.family,
                "summary": card.summary,
                "paper": asdict(card.paper),
                "num_parameters": card.num_parameters,
                "input_shape": list(card.input_shape),
                "weights": [entry.name for entry in card.weights],
            }

        print_document([facts(card) for card in cards])
        return
    print_table(
        ("model", "parameters", "input", "weights", "what it is"),
        [
            (
                card.name,
                f"{card.num_parameters:,}" if card.num_parameters else "-",
                "x".join(str(size) for size in card.input_shape),
                "yes" if card.weights else "-",
                f"{card.paper.year}, {card.summary}",
            )
            for card in cards
        ],
        numeric=("parameters", "input"),
        shorten_last=True,
    )
    print_lines(
        ["", 'Run "dlzoo info MODEL" for one of them, "dlzoo export MODEL" to export it.']
    )
