"""Output: tables for people on stdout, progress and notes on stderr, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table


def print_document(document: Any) -> None:
    """Print one JSON document on stdout; NaN and Inf, which JSON lacks, are refused."""
    print(json.dumps(document, indent=2, allow_nan=False))


def print_note(text: str) -> None:
    """Print a note on stderr."""
    print(f"note: {text}", file=sys.stderr)


def print_lines(lines: Sequence[str]) -> None:
    """Print text on stdout, wrapped to the terminal."""
    console = Console(highlight=False)
    for line in lines:
        console.print(line, markup=False)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numeric: Sequence[str] = (),
    shorten_last: bool = False,
) -> None:
    """Print a table on stdout; the columns named in ``numeric`` are aligned to the right.

    Text folds inside its column; with ``shorten_last`` the last one is cut to one line instead.
    """
    console = Console(highlight=False)
    cells = [[str(cell) for cell in row] for row in rows]
    if shorten_last:
        widths = [
            max(len(row[index]) for row in [columns, *cells])
            for index in range(len(columns) - 1)
        ]
        room = max(12, console.width - sum(widths) - 2 * len(widths))
        for row in cells:
            if len(row[-1]) > room:
                row[-1] = f"{row[-1][: room - 1]}…"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        right = column in numeric
        table.add_column(
            column, justify="right" if right else "left", no_wrap=right, overflow="fold"
        )
    for row in cells:
        table.add_row(*row)
    console.print(table, markup=False)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print pairs of a name and a text; long text folds beside its name."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts:
        table.add_row(name, text)
    Console(highlight=False).print(table, markup=False)


class StageDisplay:
    """Shows on stderr which stage runs; silent if stderr is not a terminal."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task = progress.add_task("start", total=None) if progress else None

    def stage(self, text: str) -> None:
        """Show the name of the stage that runs."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=text, total=None, completed=0)

    def note(self, text: str) -> None:
        """Print what the user should know."""
        print_note(text)

    def download(self, done_bytes: int, total_bytes: int) -> None:
        """Show how much of a download has arrived."""
        if self._progress is not None and self._task is not None:
            text = f"download {done_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB"
            self._progress.update(
                self._task, description=text, completed=done_bytes, total=total_bytes
            )


@contextmanager
def stage_display(*, quiet: bool = False) -> Iterator[StageDisplay]:
    """Show progress while the block runs, if stderr is a terminal and ``quiet`` is false."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield StageDisplay(None)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield StageDisplay(progress)
