"""The sections of report.html with the facts of manifest.json, and the timings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dlzoo.runtime.pages.html_pieces import (
    Cell,
    Column,
    Markup,
    code,
    columns,
    facts,
    link,
    paragraph,
    shortened,
    table,
)

if TYPE_CHECKING:
    from dlzoo.runtime.bundle.manifest import Manifest

#: How many ONNX operators and paths are named; the others are counted.
_NUM_OPERATORS, _NUM_PATHS = 6, 3
_STAGES = {
    "build": "make the network and its weights",
    "export": "trace it and write it in ONNX",
    "write": "save model.onnx",
    "reference": "PyTorch's answers in float64, and its float32 error",
    "power": "how small a change of each weight tensor would show",
    "layers": "every layer against PyTorch",
    "hashes": "sha256 of every file",
    "verify": "the runs of the proof",
}
#: The meaning of each spelling, shown where a layer has no reason of its own.
_SPELLINGS = {
    "native": "ONNX has an operator for it",
    "decomposed": "ONNX has no operator for it at this opset",
    "function": "an ONNX function, whose body is in the file",
    "contrib": "an operator that only ONNX Runtime has",
    "custom": "an operator of dlzoo",
    "folded": "its numbers are folded into the weights of a neighbor",
    "removed": "it does nothing in inference",
}


def axes_section(manifest: Manifest) -> str:
    """List the sizes that may change, their range, and the sizes at which they were proved."""
    if not manifest.dynamic_axes:
        return paragraph("None: the model takes only the shape that it declares.")
    places: dict[str, list[str]] = {}
    for spec in manifest.inputs:
        for axis, size in enumerate(spec.dims):
            if isinstance(size, str):
                places.setdefault(size, []).append(f"{spec.name}, axis {axis}")
    return paragraph(
        "Sizes that may change from call to call. Each was proved at the sizes named here."
    ) + table(
        "",
        columns("axis", "of", "allowed", "proved at"),
        [
            (
                *(symbol, "; ".join(places.get(symbol, []))),
                f"{axis.min} and more" if axis.max is None else f"{axis.min} to {axis.max}",
                ", ".join(map(str, axis.proved)),
            )
            for symbol, axis in manifest.dynamic_axes.items()
        ],
        name="Dynamic axes",
    )


def lowering_section(manifest: Manifest) -> str:
    """Show how each kind of layer is written in ONNX, and why."""
    if not manifest.lowering:
        return ""
    rows: list[Sequence[Cell]] = []
    for row in manifest.lowering:
        nodes = [str(op) for op in row.get("onnx", ())]
        num_nodes = int(row.get("num_nodes", len(nodes)))
        paths = [path or "the network itself" for path in row["modules"]]
        rows.append(
            (
                *(str(row["layer"]), str(row["count"])),
                str(row.get("lowering") or row["spelling"]),
                shortened(nodes, _NUM_OPERATORS)
                + (f" ({num_nodes} nodes)" if num_nodes > 1 else ""),
                str(row.get("reason") or _SPELLINGS.get(str(row["spelling"]), "")),
                code(shortened(paths, _NUM_PATHS)),
            )
        )
    return paragraph(
        f"ONNX is a small language (here opset {manifest.opset}), and a layer can often be "
        "written in it in several ways. The table shows how each kind of layer is written."
    ) + table(
        "",
        columns(
            *("layer", "times", "spelling", "ONNX operators", "why", "where"),
            numeric=("times",),
            wide=("why", "where"),
        ),
        rows,
        name="How layers are written in ONNX",
    )


def timings_section(seconds: Mapping[str, float]) -> str:
    """Show how long each stage of the export took; empty if it was not measured."""
    total = sum(seconds.values())
    if not total:
        return ""
    rows: list[Sequence[Cell]] = [
        (
            *(stage, _STAGES.get(stage, ""), f"{spent:.1f}"),
            Markup(f'<span class="share" style="width:{100 * spent / total:.1f}%"></span>'),
        )
        for stage, spent in seconds.items()
    ]
    return table(
        f"{total:.1f} seconds in all, on the machine that exported it",
        [*columns("stage", "what", "seconds", numeric=("seconds",)), Column("share", "bar")],
        rows,
        name="Seconds by stage",
        kind="small",
    )


def origin_section(manifest: Manifest) -> str:
    """List weights, inputs, outputs and versions."""
    card = manifest.card
    rows: list[tuple[str, Cell]] = [("weights", manifest.describe_weights())]
    if card.get("num_parameters"):
        rows.append(("parameters", f"{card['num_parameters']:,}"))
    rows += [("input", code(str(spec))) for spec in manifest.inputs]
    rows += [("output", code(str(spec))) for spec in manifest.outputs]
    rows.append(("output is", manifest.head))
    rows.append(
        ("ONNX", f"opset {manifest.opset}, IR {manifest.ir_version}, {manifest.precision}")
    )
    if paper := card.get("paper"):
        shown = f"{paper['authors']}: {paper['title']}, {paper['year']}"
        rows.append(("paper", link(str(paper.get("url") or ""), shown)))
    rows.append(("made with", ", ".join(f"{k} {v}" for k, v in manifest.tools.items())))
    return facts(rows)
