"""How many times better ``dlzoo serve`` is than each other server, row by row."""

from __future__ import annotations

from typing import Any

_OURS = "dlzoo"


def comparison(rows: list[dict[str, Any]]) -> list[str]:
    """Throughput over the other's, and the other's processor time over ours: above 1 we are better."""
    measured = {
        (row["model"], row["protocol"], row["concurrency"], row["server"]): row
        for row in rows
        if row["kind"] == "row"
    }
    others = list(dict.fromkeys(key[3] for key in measured if key[3] != _OURS))
    ours = [key for key in measured if key[3] == _OURS]
    if not ours or not others:
        return []
    lines = [
        "## dlzoo over the others",
        "",
        "Throughput over theirs / their processor time a request over ours: above 1, dlzoo is better.",
        "",
        f"| model | protocol | concurrency | {' | '.join(others)} |",
        f"| --- | --- | ---: |{' ---: |' * len(others)}",
    ]
    for key in ours:
        cells = [_cell(measured[key], measured.get((*key[:3], other))) for other in others]
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(ours: dict[str, Any], theirs: dict[str, Any] | None) -> str:
    if theirs is None:
        return "not run"
    throughput = ours["per_second"] / theirs["per_second"]
    return f"{throughput:.2f} / {theirs['cpu_ms'] / max(ours['cpu_ms'], 1e-9):.2f}"
