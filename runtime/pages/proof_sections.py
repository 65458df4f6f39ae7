"""The sections of report.html with the numbers of parity.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from dlzoo.runtime.pages.error_plot import layer_plot, worst_layers
from dlzoo.runtime.pages.html_pieces import (
    Cell,
    Markup,
    badge,
    code,
    columns,
    details,
    element,
    error,
    multiple,
    paragraph,
    table,
    text,
)
from dlzoo.runtime.proof.report import power_from_json

if TYPE_CHECKING:
    from dlzoo.runtime.bundle.manifest import Manifest

Parity = Mapping[str, Any]

#: Rows of the table of worst elements.
_NUM_ELEMENTS = 8
#: Rows of the table of weight tensors.
_NUM_LEAST_VISIBLE = 5


def runs_section(manifest: Manifest, parity: Parity) -> str:
    """Describe every run: how errors are measured, the worst by provider and level, then all."""
    because = f", because {manifest.limit_reason.rstrip('.')}" if manifest.limit_reason else ""
    content = paragraph(
        "The reference is PyTorch in float64. The noise floor is the error that float32 arithmetic "
        "makes in this network on the same inputs: PyTorch runs in float32 with the rounding of "
        "every operation moved at random. Errors here are multiples of that: rho2 "
        "compares root mean squares, rhomax the worst elements; about 1 means as exact as "
        f"float32 can be. A run passes with rho2 up to {manifest.rho2_limit:g} and rhomax up to "
        f"{manifest.rhomax_limit:g}{because}."
    )
    groups: dict[str, list[Parity]] = {}
    for candidate in parity["candidates"]:
        groups.setdefault(_run_name(candidate), []).append(candidate)
    content += table(
        "The worst of all runs on each provider and optimization level of ONNX Runtime",
        columns(
            *("provider, optimization", "batches", "runs", "rho2", "rhomax", "verdict"),
            numeric=("runs", "rho2", "rhomax"),
        ),
        [
            (
                name,
                ", ".join(str(batch) for batch in sorted({run["batch"] for run in runs})),
                str(len(runs)),
                *(multiple(_largest(runs, "rho2")), multiple(_largest(runs, "rhomax"))),
                badge("pass" if all(run["verdict"] == "pass" for run in runs) else "fail"),
            )
            for name, runs in groups.items()
        ],
        name="Runs by provider and optimization",
    )
    content += details(f"All {len(parity['candidates'])} runs", _runs(parity["candidates"]))
    for special in manifest.special_values:
        content += paragraph(
            f"Inputs with NaN and infinities, on {special['provider']}: {special['text']}."
        )
    for note in parity["notes"]:
        content += paragraph(f"Note: {str(note).rstrip('.')}.")
    return content


def _runs(candidates: Sequence[Parity]) -> str:
    rows = [
        (
            *(c["kind"], _run_name(c), str(c["batch"])),
            *(multiple(c["rho2"]), multiple(c["rhomax"]), _verdict_of(c)),
        )
        for c in candidates
    ]
    heads = columns(
        *("inputs", "run", "batch", "rho2", "rhomax", "verdict"),
        numeric=("batch", "rho2", "rhomax"),
        wide=("inputs",),
    )
    return table("", heads, rows, name="All runs")


def _run_name(candidate: Parity) -> str:
    kernels = candidate.get("kernels")
    place = f"{candidate['provider']} ({kernels})" if kernels else candidate["provider"]
    return f"{place}, {candidate['optimization']}"


def _verdict_of(candidate: Parity) -> Markup:
    said = list(candidate["reasons"])
    if candidate["verdict"] == "pass" and candidate["rho2"] is None:
        said += candidate["notes"] or ["NaN and Inf where PyTorch has them"]
    shown = badge(candidate["verdict"])
    return Markup(f"{shown}: {text('; '.join(said))}") if said else shown


def _largest(runs: Sequence[Parity], key: str) -> float | None:
    return max((run[key] for run in runs if run[key] is not None), default=None)


def layers_section(manifest: Manifest, parity: Parity) -> str:
    """Show the error of every layer: the plot, the first wrong one, the worst, then all."""
    layers = parity.get("layers")
    if layers is None:
        return paragraph("The errors inside the model were not measured.")
    values = layers["values"]
    if not values:
        return paragraph(f"Not measured: {layers['reason'].rstrip('.')}.")
    content = paragraph(
        f"One run on {layers['provider']} with graph optimization {layers['optimization']} "
        f"(inputs {layers['kind']}, batch {layers['batch']}), in which every value between the "
        "layers is compared with PyTorch's, too. A fault shows as a jump: the first layer beyond "
        "the limit is where to look."
    )
    wrong = [layer for layer in values if layer["verdict"] != "pass"]
    if wrong:
        content += (
            f'<p class="fail">The first of {len(wrong)} layers beyond the limits: '
            f"{_describe(wrong[0])}, ONNX node {code(wrong[0]['node'])} "
            f"{code(wrong[0]['source'])}</p>\n"
        )
    content += layer_plot(values, manifest.rho2_limit)
    items = "\n".join(f"<li>{_describe(layer)}</li>" for layer in worst_layers(values))
    content += f'<p>The worst layers, as numbered in the plot:</p>\n<ol class="worst">\n{items}\n</ol>\n'
    rows: list[Sequence[Cell]] = [
        (
            *(code(layer["module"] or layer["value"]), layer["op_type"]),
            *(multiple(layer["rho2"]), multiple(layer["rhomax"])),
            *(badge(layer["verdict"]), code(layer["source"])),
        )
        for layer in values
    ]
    heads = columns(
        *("layer", "ONNX node", "rho2", "rhomax", "verdict", "source line"),
        numeric=("rho2", "rhomax"),
    )
    count = f"All {len(values)} values"
    if layers["num_values"] > len(values):
        count += f" that PyTorch has, too, of {layers['num_values']} in the graph"
    return content + details(count, table("", heads, rows, name="All layers", kind="long"))


def _describe(layer: Parity) -> Markup:
    name = f"{code(layer['module'] or layer['value'])} ({escape(layer['op_type'])}): "
    if layer["rho2"] is None:
        return Markup(f"{name}no finite number to compare")
    return Markup(f"{name}rho2 {multiple(layer['rho2'])}, rhomax {multiple(layer['rhomax'])}")


def elements_section(parity: Parity) -> str:
    """Show the worst element of each set of inputs and output, from the run where it is worst."""
    found: dict[tuple[str, str], tuple[float, Parity, Parity]] = {}
    for candidate in parity["candidates"]:
        for worst in candidate.get("worst", ()):
            key = (candidate["golden"], worst["output"])
            is_number = not isinstance(worst["error"], str) and candidate["rhomax"] is not None
            rank = float(candidate["rhomax"]) if is_number else float("inf")
            if key not in found or rank > found[key][0]:
                found[key] = (rank, candidate, worst)
    if not found:
        return ""
    worst_first = sorted(found.values(), key=lambda entry: -entry[0])[:_NUM_ELEMENTS]
    return paragraph(
        "The single numbers of the outputs that lie farthest from PyTorch's in float64, one for "
        "each set of inputs and output, in the run where it is worst. Indices count from 0."
    ) + table(
        "",
        columns(
            *("inputs", "element", "reference", "got", "error", "rhomax", "run"),
            numeric=("reference", "got", "error", "rhomax"),
            wide=("inputs",),
        ),
        [
            (
                candidate["kind"],
                code(f"{worst['output']}[{', '.join(map(str, worst['index']))}]"),
                *(element(worst["reference"]), element(worst["got"]), error(worst["error"])),
                *(multiple(candidate["rhomax"]), _run_name(candidate)),
            )
            for _, candidate, worst in worst_first
        ],
        name="Worst elements",
    )


def power_section(parity: Parity) -> str:
    """How small a change of the weights the comparison notices."""
    power = power_from_json(parity.get("power"))
    if power is None:
        return paragraph("Not measured, so nobody knows whether this proof could have failed.")
    content = paragraph(
        "A comparison that cannot fail proves nothing. So the smallest relative change of each "
        "weight tensor that would make the verdict fail is computed, from the derivatives of the "
        "outputs. A tensor is visible if a change of 10 % of it fails; with fewer than nine of ten "
        "visible the verdict would be vacuous."
    )
    sentence = str(power)
    content += paragraph(
        Markup(f"<strong>{text(sentence[:1].upper() + sentence[1:])}.</strong>")
    )
    if power.missed:
        names = ", ".join(str(code(name)) for name in power.missed)
        content += paragraph(Markup(f"Not visible: {names}."))
    if power.without_effect:
        names = ", ".join(str(code(name)) for name in power.without_effect)
        content += paragraph(Markup(f"Without any effect on the outputs: {names}."))
    if power.smallest_changes:
        content += table(
            "The least visible weight tensors",
            columns("tensor", "smallest change noticed", numeric=("smallest change noticed",)),
            [
                (code(name), f"{100 * change:.2g} %")
                for name, change in power.least_visible[:_NUM_LEAST_VISIBLE]
            ],
            name="Least visible tensors",
        )
    return content
