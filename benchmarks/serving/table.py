"""The results as Markdown: ratios over the bare session, servers side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from comparison import alternating_table, comparison

Row = dict[str, Any]
_MIB = 2**20


def markdown(rows: list[Row]) -> str:
    """Write all tables; if a row was measured twice, the last one counts."""
    lines: list[str] = []
    for row in _of(rows, "machine"):
        versions = ", ".join(f"{name} {v}" for name, v in row["versions"].items())
        lines.append(
            f"{row['cpus']} CPUs, {row['architecture']}, load {row['load_average']} at the start; "
            f"Python {row['python']}, {versions}; {row['seconds']:g} s a row."
        )
    versions = {row["server"]: row["version"] for row in _of(rows, "version")}
    lines += ["Servers: " + ", ".join(f"{name} {v}" for name, v in versions.items()) + ".", ""]
    bare = _best_in_process(rows)
    for model in _distinct(row["model"] for row in _of(rows, "in_process", "row")):
        lines += _model_table(model, rows, bare)
    lines += comparison(rows)
    lines += alternating_table(rows)
    lines += _process_table(rows)
    lines += _half_load_table(rows)
    missing = _of(rows, "not_run", "error")
    if missing:
        lines += ["Not run, or failed:", ""]
        for row in missing:
            what = row.get("what") or " ".join(
                str(row[key]) for key in ("model", "protocol", "concurrency") if key in row
            )
            lines.append(f"- {row['server']}, {what}: {row['reason']}")
    return "\n".join(lines).rstrip() + "\n"


def _of(rows: Iterable[Row], *kinds: str) -> list[Row]:
    return [row for row in rows if row["kind"] in kinds]


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _best_in_process(rows: list[Row]) -> dict[tuple[str, int], Row]:
    """Select the fastest of the measurements, with the least processor time of all."""
    best: dict[tuple[str, int], Row] = {}
    for row in _of(rows, "in_process"):
        key = row["model"], row["concurrency"]
        other = best.get(key, row)
        cpu_ms = min(row["cpu_ms"], other["cpu_ms"])
        best[key] = max(row, other, key=lambda each: float(each["per_second"])) | {
            "cpu_ms": cpu_ms
        }
    return best


def _model_table(model: str, rows: list[Row], bare: dict[tuple[str, int], Row]) -> list[str]:
    lines = [
        f"## {model}",
        "",
        "In brackets: over in-process. CPU: ms per request. *: the client is the limit.",
        "",
        "| concurrency | protocol | server | CPU ms | p50 ms | p99 ms | requests/s | client CPU ms |",
        "| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    measured = {
        (row["concurrency"], row["protocol"], row["server"]): row
        for row in _of(rows, "row")
        if row["model"] == model
    }
    sizes = sorted(
        {key[0] for key in measured} | {size for name, size in bare if name == model}
    )
    for size in sizes:
        base = bare.get((model, size))
        if base:
            cells = (base[name] for name in ("cpu_ms", "p50_ms", "p99_ms", "per_second"))
            texts = " | ".join(_figure(value) for value in cells)
            what = f"batches of {base['batch']}"
            lines.append(f"| {size} | {what} | in-process | {texts} | |")
        for (other, protocol, server), row in measured.items():
            if other != size:
                continue
            texts = " | ".join(
                _with_ratio(row[name], base[name] if base else None)
                for name in ("cpu_ms", "p50_ms", "p99_ms", "per_second")
            )
            star = " *" if row["client_is_limit"] else ""
            client = _figure(row["client_cpu_ms"])
            lines.append(f"| {size} | {protocol} | {server} | {texts}{star} | {client} |")
    return [*lines, ""]


def _figure(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _with_ratio(value: float, base: float | None) -> str:
    return _figure(value) if not base else f"{_figure(value)} ({value / base:.2f})"


def _process_table(rows: list[Row]) -> list[str]:
    processes = {(row["model"], row["server"]): row for row in _of(rows, "process")}
    if not processes:
        return []
    sessions: dict[str, float] = {}
    for row in _of(rows, "session"):
        sessions[row["model"]] = max(row["memory_bytes"], sessions.get(row["model"], 0))
    starts = {(row["model"], row["server"]): row["ready_s"] for row in _of(rows, "starts")}
    lines = [
        "## Processes",
        "",
        "Ready: from the process's start to the first 200, the median. Memory: resident, 5 s after "
        "the load and at its end, over that of a process with the bare session.",
        "",
        "| model | server | ready s (starts) | memory MiB | over session | at the end of load | processes | PyTorch |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for (model, server), row in processes.items():
        memory = row["memory_bytes"] / _MIB
        session = sessions.get(model)
        loaded = row["loaded_bytes"] / _MIB
        over = f"{memory - session / _MIB:.0f}" if session else ""
        over_loaded = f"{loaded - session / _MIB:.0f}" if session else ""
        seconds = starts.get((model, server))
        ready = f"{statistics.median(seconds):.2f} ({len(seconds)})" if seconds else ""
        torch = "mapped" if row["has_torch"] else "none"
        lines.append(
            f"| {model} | {server} | {ready} | {memory:.0f} | {over} | {over_loaded} | {row['processes']} | {torch} |"
        )
    return [*lines, ""]


def _half_load_table(rows: list[Row]) -> list[str]:
    measured = {
        (row["model"], row["server"], row["is_poisson"]): row for row in _of(rows, "half_load")
    }
    if not measured:
        return []
    lines = [
        "## At half of the measured peak, open loop",
        "",
        "| model | server | protocol | arrivals | requests/s | p50 ms | p99 ms | p99 / p50 |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for (model, server, is_poisson), row in measured.items():
        arrivals = "Poisson" if is_poisson else "even"
        lines.append(
            f"| {model} | {server} | {row['protocol']} | {arrivals} | {_figure(row['rate'])} | "
            f"{_figure(row['p50_ms'])} | {_figure(row['p99_ms'])} | "
            f"{row['p99_ms'] / row['p50_ms']:.2f} |"
        )
    return [*lines, ""]
