"""The report page of a bundle, with the errors of layers that ``dlzoo diff`` has measured."""

from __future__ import annotations

from collections.abc import Sequence

from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.diff.diff_report import DiffReport
from dlzoo.runtime.pages.report_page import report_page
from dlzoo.runtime.proof.layer_errors import LayerError, LayerErrors
from dlzoo.runtime.session.run_settings import AS_WRITTEN


def diff_page(report: DiffReport, bundle: Bundle) -> str:
    """Build the page from the bundle's parity.json and the layers of a comparison.

    If the two differ, the verdict is ``fail``, whatever parity.json says.

    Args:
        report: the bundle against the network that it was exported from.
        bundle: the bundle.

    Raises:
        BundleError: the bundle has no parity.json.
    """
    parity = bundle.parity()
    parity["layers"] = layers_of_diff(report, bundle.golden_sets()).to_json()
    if not report:
        parity["verdict"] = "fail"
        parity["reasons"] = [report.explanation]
    return report_page(bundle.manifest, parity)


def layers_of_diff(report: DiffReport, golden_sets: Sequence[GoldenSet]) -> LayerErrors:
    """Collect every value that was compared, with the settings and the inputs."""
    settings = report.attribution.settings if report.attribution else AS_WRITTEN
    wrong = [judgement for judgement in report.judgements if not judgement]
    kind = (wrong or list(report.judgements))[0].kind
    golden = next((found for found in golden_sets if found.kind == kind), None)
    return LayerErrors(
        provider=settings.provider,
        optimization=settings.optimization,
        golden=golden.name if golden else "",
        kind=kind,
        batch=golden.batch if golden else 0,
        num_values=report.num_values,
        values=tuple(
            LayerError.from_difference(
                check.difference,
                check.node,
                module=report.places[check.value].module_path,
                source=report.places[check.value].source_line,
            )
            for check in report.checks
        ),
        reason=""
        if report.checks
        else "no value of the model has a counterpart in the network",
    )
