"""Compare ``dlzoo serve`` with each other server, as ratios, row by row."""

from __future__ import annotations

import statistics
from typing import Any

_OURS = "dlzoo"


def comparison(rows: list[dict[str, Any]]) -> list[str]:
    """Our throughput over the other's, and the other's processor time over ours; above 1 is better."""
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


def alternating_table(rows: list[dict[str, Any]]) -> list[str]:
    """Medians over the rounds; ratios are medians of those within a round, and their range."""
    turns: dict[tuple[str, str, int], dict[str, dict[int, dict[str, Any]]]] = {}
    for row in rows:
        if row["kind"] == "turn":
            key = row["model"], row["protocol"], row["concurrency"]
            turns.setdefault(key, {}).setdefault(row["server"], {})[row["round"]] = row
    if not turns:
        return []
    lines = [
        "## In turns",
        "",
        "Medians of the rounds. dlzoo over another: throughput, within a round, median (least to most).",
        "",
        "| model | protocol | concurrency | server | requests/s | CPU ms | dlzoo over it | dlzoo-workers over it |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for (model, protocol, concurrency), servers in sorted(turns.items()):
        for server, rounds in servers.items():
            rate, cpu_ms = (
                statistics.median(row[name] for row in rounds.values())
                for name in ("per_second", "cpu_ms")
            )
            cells = " | ".join(
                _ratio(servers.get(ours, {}), rounds) if ours != server else ""
                for ours in ("dlzoo", "dlzoo-workers")
            )
            lines.append(
                f"| {model} | {protocol} | {concurrency} | {server} | {rate:,.4g} | {cpu_ms:.3g} "
                f"| {cells} |"
            )
    return [*lines, ""]


def _ratio(ours: dict[int, dict[str, Any]], theirs: dict[int, dict[str, Any]]) -> str:
    ratios = [
        ours[number]["per_second"] / theirs[number]["per_second"]
        for number in ours.keys() & theirs.keys()
    ]
    if not ratios:
        return ""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
