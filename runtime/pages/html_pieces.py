"""Pieces of HTML for report.html, which escape every text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

#: From this value on a multiple of the noise floor is written with an exponent.
_MANY = 1000.0


@dataclass(frozen=True)
class Markup:
    """HTML that is safe to insert unchanged."""

    html: str

    def __str__(self) -> str:
        return self.html


Cell = str | Markup


@dataclass(frozen=True)
class Column:
    """A column of a table; ``kind`` is a class of the style sheet, such as ``n`` for numbers."""

    name: str
    kind: str = ""


def columns(
    *names: str, numeric: Sequence[str] = (), wide: Sequence[str] = ()
) -> list[Column]:
    """Make columns by name: numeric ones are aligned to the right, wide ones have room for text."""
    return [
        Column(name, "n" if name in numeric else "wide" if name in wide else "")
        for name in names
    ]


def text(value: object) -> str:
    """Escape a value for HTML; :class:`Markup` stays unchanged."""
    return value.html if isinstance(value, Markup) else escape(str(value))


def code(value: str) -> Markup:
    """Show a name from a program."""
    return Markup(f"<code>{escape(value)}</code>") if value else Markup("")


def multiple(value: float | None) -> Markup:
    """Show a multiple of the noise floor, rounded; the exact number is in the ``data`` element."""
    return Markup("-") if value is None else _data(value, short_multiple(value))


def short_multiple(value: float) -> str:
    """Write a multiple with two or three significant digits."""
    if not math.isfinite(value):
        return element_text(value)
    if value == 0:
        return "0"
    if value >= _MANY or value < 0.01:
        return f"{value:.1e}"
    return f"{value:.2f}"


def element(value: float | str) -> Markup:
    """Show one element of an output with the digits of float32; NaN and Inf as their names."""
    number = float(value)
    return _data(value, element_text(number)) if math.isfinite(number) else Markup(text(value))


def element_text(value: float) -> str:
    """Write a number with the nine digits that distinguish float32 values."""
    if math.isnan(value):
        return "NaN"
    return f"{value:.9g}" if math.isfinite(value) else ("+Inf" if value > 0 else "-Inf")


def error(value: float | str) -> Markup:
    """Show the error of one element, with its sign."""
    return Markup(text(value)) if isinstance(value, str) else _data(value, f"{value:+.1e}")


def badge(verdict: str) -> Markup:
    """Show a verdict in its color."""
    return Markup(f'<strong class="{escape(verdict)}">{escape(verdict)}</strong>')


def _data(value: float | str, shown: str) -> Markup:
    return Markup(f'<data value="{escape(repr(value))}">{escape(shown)}</data>')


def table(
    caption: str,
    heads: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    *,
    name: str,
    kind: str = "stack",
) -> str:
    """Build a table whose first column heads its rows.

    On a phone each row of a ``stack`` becomes a block of cells under one another, with the names of
    their columns; the ARIA roles keep it a table for screen readers. A ``long`` table scrolls
    sideways, a ``small`` one fits. The frame takes the focus, so that the arrow keys scroll it, and
    has the accessible name ``name``.
    """
    kinds = [f' class="{column.kind}"' if column.kind else "" for column in heads]
    head = "".join(
        f'<th scope="col" role="columnheader"{kind}>{escape(column.name)}</th>'
        for column, kind in zip(heads, kinds, strict=True)
    )
    body = []
    for row in rows:
        first, *others = (text(cell) for cell in row)
        cells = "".join(
            f'<td role="cell"{kind} data-label="{escape(column.name)}">{cell}</td>'
            for cell, column, kind in zip(others, heads[1:], kinds[1:], strict=True)
        )
        body.append(
            f'<tr role="row"><th scope="row" role="rowheader"{kinds[0]}>{first}</th>{cells}</tr>'
        )
    shown = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">\n'
        f'<table role="table" class="{kind}">{shown}\n'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n<tbody role="rowgroup">\n'
        + "\n".join(body)
        + "\n</tbody></table></div>\n"
    )


def facts(rows: Sequence[tuple[str, Cell]]) -> str:
    """Build a list of names and values."""
    items = "\n".join(f"<dt>{escape(name)}</dt><dd>{text(value)}</dd>" for name, value in rows)
    return f'<dl class="facts">\n{items}\n</dl>\n'


def details(summary: str, content: str) -> str:
    """Build content that is shown on demand."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}</details>\n"


def paragraph(content: Cell, kind: str = "") -> str:
    """Build a paragraph."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{text(content)}</p>\n"


def link(url: str, shown: str) -> Markup:
    """Link to a web address; show anything else only as text."""
    if not url.startswith(("https://", "http://")):
        return Markup(escape(shown))
    return Markup(f'<a href="{escape(url)}" rel="noreferrer">{escape(shown)}</a>')


def shortened(names: Sequence[str], most: int) -> str:
    """List the first names and count the rest."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
