"""report.html: a bundle's proof as one page that needs no other file.

It is made from manifest.json and parity.json; only the timings, which differ from run to run, are
passed separately. The same facts give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from dlzoo.runtime.pages.html_pieces import Markup, multiple, paragraph, text
from dlzoo.runtime.pages.model_sections import (
    axes_section,
    lowering_section,
    origin_section,
    timings_section,
)
from dlzoo.runtime.pages.proof_sections import (
    elements_section,
    layers_section,
    power_section,
    runs_section,
)
from dlzoo.runtime.pages.style import STYLE

if TYPE_CHECKING:
    from dlzoo.runtime.bundle.manifest import Manifest

Parity = Mapping[str, Any]


def report_page(
    manifest: Manifest, parity: Parity, seconds: Mapping[str, float] | None = None
) -> str:
    """Build the page's HTML.

    Args:
        manifest: the bundle's manifest.
        parity: the content of parity.json.
        seconds: the time of each stage of the export; without it the page has no timings.
    """
    sections = [
        ("proof", "What was proved", runs_section(manifest, parity)),
        ("layers", "Error layer by layer", layers_section(manifest, parity)),
        ("elements", "Worst elements", elements_section(parity)),
        ("power", "Would a wrong weight have been noticed?", power_section(parity)),
        ("axes", "Dynamic axes", axes_section(manifest)),
        ("lowering", "How layers are written in ONNX", lowering_section(manifest)),
        ("timings", "Timings", timings_section(seconds or {})),
        ("origin", "Weights and tools", origin_section(manifest)),
    ]
    shown = [section for section in sections if section[2]]
    contents = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in shown)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title">\n'
        f'<h2 id="{key}-title">{title}</h2>\n{content}</section>\n'
        for key, title, content in shown
    )
    name, verdict = escape(manifest.name), escape(str(parity["verdict"]))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: {verdict}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<div class="title"><h1>{name}</h1><span class="verdict {verdict}">{verdict}</span></div>
{paragraph(_sentence(manifest, parity), "lead")}{_summary(manifest)}</header>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
<main>
{body}</main>
<footer>
<p>Replay the proof on any machine, without PyTorch: <code>dlzoo verify FOLDER</code> with the
folder that holds this page. The same numbers for programs are in <code>parity.json</code> and
<code>manifest.json</code>.</p>
</footer>
</body>
</html>
"""


def _sentence(manifest: Manifest, parity: Parity) -> Markup:
    candidates = parity["candidates"]
    num_failed = sum(candidate["verdict"] != "pass" for candidate in candidates)
    reasons = "; ".join(str(reason).rstrip(".") for reason in parity["reasons"])
    if parity["verdict"] == "vacuous":
        return Markup(f"Nothing is proved of this model: {text(reasons)}.")
    if parity["verdict"] != "pass":
        said = f"{num_failed} of {len(candidates)} runs fail" if num_failed else reasons
        return Markup(f"This ONNX model does not give PyTorch's answers: {text(said)}.")
    known = [c["rho2"] for c in candidates if c["rho2"] is not None]
    return Markup(
        f"This ONNX model gives PyTorch's answers. In {len(candidates)} runs its error is at most "
        f"{multiple(max(known, default=None))} times the error that float32 itself "
        f"makes; up to {manifest.rho2_limit:g} passes."
    )


def _as_sentence(text: str) -> str:
    """Add a capital and a full stop, unless the text starts with a name such as ``net.py:Net``."""
    is_name = ":" in text.split(" ")[0]
    return text if is_name else f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _summary(manifest: Manifest) -> str:
    summary = str(manifest.card.get("summary") or "")
    lines = paragraph(_as_sentence(summary), "muted") if summary else ""
    if manifest.weights["kind"] == "random":
        lines += paragraph(
            "The weights are random, so the model's answers mean nothing: the page only shows that "
            "the ONNX file computes the same as the network.",
            "warn",
        )
    return lines
