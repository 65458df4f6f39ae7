"""``dlzoo diff``: where two models diverge: at which node, in which layer, and from which origin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlzoo.errors import ArgumentError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dlzoo.runtime.bundle.bundle import Bundle
    from dlzoo.runtime.diff.culprit import Culprit
    from dlzoo.runtime.diff.diff_report import DiffReport

#: Values in the table before the first wrong one, and after it.
_NUM_BEFORE, _NUM_AFTER = 2, 3
#: More nodes than this are counted, not shown.
_MAX_CULPRITS = 5
_MANY = 1000


def diff(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A bundle, an .onnx file, or a MODEL as for dlzoo export."
        ),
    ],
    b: Annotated[
        str | None,
        typer.Argument(
            metavar="B",
            help="The model to compare with. Without it, A is compared with itself on two providers.",
        ),
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(help="Run the graph on cpu, cuda, …; repeatable. [cpu]"),
    ] = None,
    golden: Annotated[
        Path | None, typer.Option(help="Inputs for bare .onnx files: a folder of input_N.pb.")
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=SHAPE of an input to draw, if a bare .onnx file leaves its shape open."
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Weights of a MODEL, as for dlzoo export.")
    ] = "auto",
    seed: Annotated[
        int, typer.Option(help="Seed of random weights, and of inputs if none are recorded.")
    ] = 0,
    session_config: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE for ONNX Runtime's session configuration; repeatable."),
    ] = None,
    max_memory: Annotated[
        float | None,
        typer.Option(
            help="GB of intermediate values that are held in memory at a time. [1.07]"
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write the comparison of a MODEL with its bundle to this file, as an HTML page.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Name the first value in which two models differ, and why.

    It is named by its node and layer, and the origin of the difference: the exporter, the graph
    optimizer or a provider. The reference is the network in PyTorch, in float64, if one is given;
    otherwise it is A. The exit status is 0 if both are equal within the noise of float32, 1 if
    they differ. For a MODEL that is a Python file or module, that code is run.
    """
    from dlzoo.cli.console import print_document, stage_display
    from dlzoo.export.diff.diff import diff as compare
    from dlzoo.runtime.diff.diff_report import DifferenceError
    from dlzoo.zoo.sources.input_spec import parse_input_spec

    bundle = None if page is None else _bundle_for_page(page, a, b)
    with stage_display(quiet=json) as display:
        report = compare(
            a,
            b,
            providers=tuple(provider or ("cpu",)),
            golden=golden,
            inputs=[parse_input_spec(text) for text in input or ()],
            weights=weights,
            seed=seed,
            session_config=_entries(session_config or ()),
            max_bytes=None if max_memory is None else int(max_memory * 1e9),
            progress=display,
        )
    if page is not None and bundle is not None:
        _write_page(page, report, bundle)
    if json:
        print_document(report.to_json())
    else:
        _print(report)
    if not report:
        raise DifferenceError(
            f"{report.candidate} differs from {report.reference}. {report.explanation}",
            report=report,
        )


def _bundle_for_page(page: Path, a: str, b: str | None) -> Bundle:
    from dlzoo.runtime.bundle.bundle import Bundle

    folders = [side for side in (a, b) if side is not None and Path(side).is_dir()]
    graphs = [side for side in (a, b) if side is not None and side.endswith(".onnx")]
    if len(folders) != 1 or graphs or b is None:
        raise ArgumentError(
            f"--report got {' and '.join(filter(None, (a, b)))}, expected a MODEL and its bundle. "
            "Write for example dlzoo diff vgg16 bundles/vgg16 --report report.html."
        )
    if not page.parent.is_dir():  # before it costs a minute
        raise StorageError(
            f"--report {page} cannot be written: there is no folder {page.parent}. Choose another file."
        )
    return Bundle.open(folders[0])


def _write_page(path: Path, report: DiffReport, bundle: Bundle) -> None:
    from dlzoo.runtime.pages.diff_page import diff_page

    html = diff_page(report, bundle)
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"--report {path} cannot be written: {error.strerror}. Name another file."
        ) from None


def _entries(texts: Sequence[str]) -> Mapping[str, str]:
    entries = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ArgumentError(
                f"--session-config got {text!r}, expected KEY=VALUE. Write for example "
                "--session-config session.disable_prepacking=1."
            )
        entries[key] = value
    return entries


def _print(report: DiffReport) -> None:
    from dlzoo.cli.console import print_facts, print_lines, print_table

    print_lines(
        [f"{report.verdict.upper()}  {report.candidate} against {report.reference}", ""]
    )
    groups: dict[tuple[str, str], list[int]] = {}
    for index, judgement in enumerate(report.judgements):
        groups.setdefault((judgement.provider, judgement.optimization), []).append(index)
    print_table(
        ("provider", "optimization", "inputs", "rho2", "rhomax", "outputs"),
        [
            (
                provider,
                optimization,
                "1 set" if len(indices) == 1 else f"{len(indices)} sets",
                _largest(report.judgements[i].rho2 for i in indices),
                _largest(report.judgements[i].rhomax for i in indices),
                "equal" if all(report.judgements[i] for i in indices) else "different",
            )
            for (provider, optimization), indices in groups.items()
        ],
        numeric=("rho2", "rhomax"),
    )
    print_lines([""])
    facts = [
        (
            "values",
            f"{len(report.checks)} of {report.num_values} compared, by {report.matched_by}; "
            f"{report.num_wrong} differ",
        )
    ]
    for culprit in report.culprits[:_MAX_CULPRITS]:
        facts += _culprit_facts(culprit, is_first=culprit is report.culprits[0])
    if len(report.culprits) > _MAX_CULPRITS:
        facts.append(("also", f"{len(report.culprits) - _MAX_CULPRITS} more nodes"))
    if report.attribution is not None:
        facts.append(("origin", f"{report.attribution.origin}: {report.attribution.text}"))
    facts += [("note", note) for note in report.notes]
    print_facts(facts)
    if rows := report.around_the_first(_NUM_BEFORE, _NUM_AFTER):
        print_lines([""])
        print_table(
            ("rho2", "rhomax", "", "value", "node", "layer"),
            [
                (
                    _largest([check.difference.rho2]),
                    _largest([check.difference.rhomax]),
                    "" if check else "x",
                    check.value,
                    check.node.op_type,
                    report.places[check.value].module_path,
                )
                for check in rows
            ],
            numeric=("rho2", "rhomax"),
        )


def _largest(numbers: Iterable[float | None]) -> str:
    """The largest number: two decimals, or an exponent where decimals mean nothing."""
    known = [number for number in numbers if number is not None]
    if not known:
        return "-"
    return f"{max(known):.2f}" if max(known) < _MANY else f"{max(known):.1e}"


def _culprit_facts(culprit: Culprit, *, is_first: bool) -> list[tuple[str, str]]:
    if not is_first:
        return [("also", str(culprit))]
    place = culprit.expected_place if culprit.kind == "missing" else culprit.place
    facts = [("first wrong", culprit.sentence)]
    if place.module_path or place.operator:
        facts.append(("layer", place.module_path or "the network's forward"))
    if place.source_line:
        facts.append(("source", place.source_line))
    facts.append(("run alone", culprit.rerun))
    return facts
