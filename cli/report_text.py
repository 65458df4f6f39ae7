"""A report as text for an 80-column terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dlzoo.cli.console import print_facts, print_lines, print_table

if TYPE_CHECKING:
    from dlzoo.runtime.bundle.bundle import Bundle
    from dlzoo.runtime.bundle.manifest import Manifest
    from dlzoo.runtime.proof.report import CandidateResult, Report

_HOW_TO_READ = (
    "rho2 and rhomax are the ONNX model's error, root mean square and worst element, as a "
    "multiple of the noise floor: the error that float32 arithmetic itself makes in this network "
    "against a float64 reference. About 1 means: as exact as float32 can be."
)
#: Further failed runs are not printed.
_MAX_FAILURES = 10


def print_export(bundle: Bundle, report: Report) -> None:
    """Print what was written, from what, and what was proved."""
    manifest = bundle.manifest
    size_mb = bundle.model_path.stat().st_size / 1e6
    print_lines([f"{bundle.path}/ holds {manifest.name}, exported and proved.", ""])
    print_facts(
        [
            ("model.onnx", f"{size_mb:,.1f} MB, opset {manifest.opset}, {manifest.precision}"),
            *(("input", str(spec)) for spec in manifest.inputs),
            *(("output", str(spec)) for spec in manifest.outputs),
            ("weights", manifest.describe_weights()),
        ]
    )
    print_lines([""])
    print_report(report, manifest)
    print_lines(
        ["", f"Replay the proof anywhere, without PyTorch: dlzoo verify {bundle.path}"]
    )


def print_report(report: Report, manifest: Manifest | None = None) -> None:
    """Print the verdict, the worst numbers of every kind of run, and how to read them.

    Args:
        report: of a proof.
        manifest: of the bundle, where there is one: it says how NaN and infinities are answered.
    """
    print_lines([f"{report.verdict.upper()}  {report.bundle}, opset {report.opset}", ""])
    groups: dict[tuple[str, str], list[CandidateResult]] = {}
    for result in report.candidates:
        groups.setdefault((result.place, result.optimization), []).append(result)
    print_table(
        ("provider", "optimization", "batches", "inputs", "rho2", "rhomax", "verdict"),
        [
            (
                place,
                optimization,
                ", ".join(str(batch) for batch in sorted({r.batch for r in results})),
                f"{len(results)} sets",
                worst(r.rho2 for r in results),
                worst(r.rhomax for r in results),
                "pass" if all(r.verdict == "pass" for r in results) else "fail",
            )
            for (place, optimization), results in groups.items()
        ],
        numeric=("rho2", "rhomax"),
    )
    for result in [r for r in report.candidates if r.verdict != "pass"][:_MAX_FAILURES]:
        where = f"{result.place}, {result.optimization}, batch {result.batch}, {result.kind}"
        print_lines([f"FAIL  {where}: {'; '.join(result.reasons)}"])
    print_lines([""])
    print_facts(_facts(report, manifest))
    print_lines(["", _HOW_TO_READ])


def _facts(report: Report, manifest: Manifest | None) -> list[tuple[str, str]]:
    facts = []
    if power := report.power:
        text = str(power)
        if power.without_effect:
            text += f"; no effect on the outputs at all: {', '.join(power.without_effect)}"
        facts.append(("power", text))
    for symbol, axis in report.dynamic_axes.items():
        proved = ", ".join(str(size) for size in axis["proved"])
        facts.append(("dynamic axis", f"{symbol}, proved at {proved}"))
    for special in manifest.special_values if manifest else ():
        facts.append(
            ("special values", f"{special['text']} ({special['provider']}, when exported)")
        )
    facts += [("note", note) for note in report.notes]
    # Stages that take next to no time are left out.
    stages = [f"{stage} {s:.1f}" for stage, s in report.seconds.items() if s >= 0.05]
    if stages:
        facts.append(("seconds", ", ".join(stages)))
    return facts


def worst(numbers: Iterable[float | None]) -> str:
    """The largest number, with two decimals; a dash if there is none."""
    known = [number for number in numbers if number is not None]
    return f"{max(known):.2f}" if known else "-"
