"""report.html: what a bundle proves, as one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlzoo.export.bundle import Manifest

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --bad: #ff7b72; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.verdict { display: inline-block; padding: .1rem .7rem; border: 2px solid; border-radius: 1rem; font-weight: 700; }
.pass { color: var(--good); } .fail, .vacuous { color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .9em; overflow-wrap: anywhere; } svg { width: 100%; height: auto; } svg text { fill: currentColor; font: 12px system-ui, sans-serif; }
"""

#: The plot's x axis in multiples of the noise floor; beyond it a dot sits on the edge.
_PLOT_MAX = 8.0
_PLOT_LEFT, _PLOT_WIDTH, _ROW_HEIGHT = 230, 480, 22


def report_page(manifest: Manifest, parity: Mapping[str, Any]) -> str:
    """The page's HTML, from what the manifest and the report say and nothing else."""
    verdict = parity["verdict"]
    card = manifest.card
    paper = card.get("paper")
    facts = [
        ("ONNX", f"opset {manifest.opset}, IR {manifest.ir_version}, {manifest.precision}"),
        *(("input", str(spec)) for spec in manifest.inputs),
        *(("output", f"{spec} ({manifest.head})") for spec in manifest.outputs),
        ("weights", manifest.describe_weights()),
        *(
            ("dynamic axis", f"{axis.symbol}: proved at {', '.join(map(str, axis.proved))}")
            for axis in manifest.dynamic_axes.values()
        ),
    ]
    if power := parity.get("power"):
        caught = (
            f"{power['detected']} of {power['tried']} small faults in single weight tensors"
        )
        facts.append(("power of the proof", f"{caught} were caught"))
    facts += [("note", note) for note in parity["notes"]]
    if paper:
        facts.append(("paper", f"{paper['authors']}: {paper['title']}, {paper['year']}"))
    facts.append(("made with", ", ".join(f"{k} {v}" for k, v in manifest.tools.items())))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(manifest.name)}: {escape(verdict)}</title><style>{_STYLE}</style></head><body>
<h1>{escape(manifest.name)} <span class="verdict {escape(verdict)}">{escape(verdict)}</span></h1>
<p>{escape(card.get("summary") or "")}</p>
{_table(("", ""), facts)}
<h2>Error against PyTorch in float64</h2>
<p>In multiples of the error that PyTorch itself makes in float32: 1 is as exact as PyTorch.
A run passes up to {manifest.rho2_limit:g} (rho2, root mean square) and {manifest.rhomax_limit:g}
(rhomax, worst element).</p>
{_plot(parity["candidates"], manifest)}
{_candidates_table(parity["candidates"])}
<h2>How layers are spelled in ONNX</h2>
{_lowering_table(manifest.lowering)}
</body></html>
"""


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()
) -> str:
    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if column in numeric else ''}>{escape(value)}</{tag}>"
            for column, value in enumerate(values)
        )

    head = f"<thead><tr>{cells('th', header)}</tr></thead>" if any(header) else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _candidates_table(candidates: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            _place(candidate),
            candidate["optimization"],
            str(candidate["batch"]),
            candidate["kind"],
            _number(candidate["rho2"]),
            _number(candidate["rhomax"]),
            "; ".join([_verdict_text(candidate), *candidate["reasons"]]),
        )
        for candidate in candidates
    ]
    header = ("provider", "optimization", "batch", "inputs", "rho2", "rhomax", "verdict")
    return _table(header, rows, numeric=(2, 4, 5))


def _place(candidate: Mapping[str, Any]) -> str:
    kernels = candidate.get("kernels")
    return f"{candidate['provider']} ({kernels})" if kernels else str(candidate["provider"])


def _verdict_text(candidate: Mapping[str, Any]) -> str:
    if candidate["verdict"] == "pass" and candidate["rho2"] is None:
        return "pass: NaN and Inf where PyTorch has them"
    return str(candidate["verdict"])


def _lowering_table(lowering: Sequence[Mapping[str, Any]]) -> str:
    columns = {
        "layer": "layer",
        "count": "times",
        "spelling": "spelling",
        "onnx": "operators",
        "num_nodes": "nodes each",
        "modules": "where",
    }
    rows = [tuple(_cell(entry.get(key)) for key in columns) for entry in lowering]
    return _table(tuple(columns.values()), rows, numeric=(1, 4))


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        shown = [str(item) for item in value[:4]]
        return ", ".join(shown) + (f" and {len(value) - 4} more" if len(value) > 4 else "")
    return "" if value is None else str(value)


def _plot(candidates: Sequence[Mapping[str, Any]], manifest: Manifest) -> str:
    """A row per provider and optimization level, a dot per golden set."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for candidate in candidates:
        name = f"{_place(candidate)}, optimization {candidate['optimization']}"
        groups.setdefault(name, []).append(candidate)
    height = _ROW_HEIGHT * len(groups) + 34
    parts = []
    for limit, label in (
        (manifest.rho2_limit, "rho2 limit"),
        (manifest.rhomax_limit, "rhomax"),
    ):
        x = _plot_x(limit)
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="0" y2="{height - 30}" stroke="currentColor" '
            f'stroke-dasharray="3 3" opacity=".6"/>'
            f'<text x="{x}" y="{height - 2}" text-anchor="middle">{label} {limit:g}</text>'
        )
    for row, (name, results) in enumerate(groups.items()):
        y = _ROW_HEIGHT * row + 14
        parts.append(f'<text x="0" y="{y + 4}">{escape(name)}</text>')
        for result in results:
            colour = "var(--good)" if result["verdict"] == "pass" else "var(--bad)"
            for key, style in (
                ("rho2", f'fill="{colour}"'),
                ("rhomax", f'fill="none" stroke="{colour}"'),
            ):
                if result[key] is not None:
                    title = (
                        f"{result['kind']}, batch {result['batch']}: {key} {result[key]:.3f}"
                    )
                    parts.append(
                        f'<circle cx="{_plot_x(result[key])}" cy="{y}" r="4" {style} '
                        f'opacity=".8"><title>{escape(title)}</title></circle>'
                    )
    return (
        f'<div class="scroll"><svg viewBox="0 0 {_PLOT_LEFT + _PLOT_WIDTH + 20} {height}" '
        f'role="img" aria-label="rho2 (filled) and rhomax (open) of every run">'
        f"{''.join(parts)}</svg></div><p>Filled dots are rho2, open ones rhomax.</p>"
    )


def _plot_x(value: float) -> float:
    return round(_PLOT_LEFT + min(value, _PLOT_MAX) / _PLOT_MAX * _PLOT_WIDTH, 1)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
