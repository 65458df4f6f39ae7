"""``dlzoo classify``: the best classes of images, through the bundle's own preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def classify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    provider: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="How many classes.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Print the best classes of images."""
    from dataclasses import asdict

    from dlzoo.cli.console import print_document, print_lines, print_table
    from dlzoo.runtime.images.classify import classify as classify_images

    results = classify_images(bundle, images, provider=provider, k=top)
    if json:
        print_document([asdict(result) for result in results])
        return
    for number, result in enumerate(results):
        print_lines([*([""] if number else []), str(result.image)])
        print_table(
            ("", "class", "label", "score"),
            [
                (rank, entry.index, entry.label, f"{entry.score:.4f}")
                for rank, entry in enumerate(result.top, start=1)
            ],
            numeric=("", "class", "score"),
        )
