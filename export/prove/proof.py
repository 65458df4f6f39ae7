"""The main job: export a network, prove the graph against it, and write the bundle."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from dlzoo.errors import DlzooError
from dlzoo.export.diff.diff import explain_failure
from dlzoo.export.plan.options import ExportOptions
from dlzoo.export.plan.plan import ExportPlan, SizeError
from dlzoo.export.prove.unproved_bundle import write_unproved
from dlzoo.export.prove.wrong_sizes import find_culprit, find_wrong_sizes
from dlzoo.export.reference.silent_layer import first_silent_layer
from dlzoo.runtime.bundle.bundle import Bundle, write_parity
from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.bundle.staging import BUNDLE, staged_folder
from dlzoo.runtime.pages.model_card import model_card_from_manifest
from dlzoo.runtime.pages.report_page import report_page
from dlzoo.runtime.proof.limits import VACUOUS_SHARE
from dlzoo.runtime.proof.progress import SILENT, Progress
from dlzoo.runtime.proof.report import ProofError, Report
from dlzoo.runtime.proof.silent_sizes import sets_of_silent_sizes
from dlzoo.runtime.proof.stage_clock import StageClock
from dlzoo.runtime.proof.validate import verify_bundle
from dlzoo.zoo.module_state import in_eval_mode
from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.load import load_source
from dlzoo.zoo.sources.source import SourceOptions


def export_and_report(
    model: str | nn.Module,
    output: str | Path | None = None,
    *,
    options: ExportOptions | None = None,
    weights: str = "auto",
    seed: int = 0,
    inputs: Sequence[InputSpec] = (),
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    name: str | None = None,
    providers: Sequence[str] = ("cpu",),
    optimizations: Sequence[str] = ("disabled", "basic", "all"),
    strict_special_values: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> tuple[Bundle, Report]:
    """Export a model as :func:`dlzoo.export_model` does, and return the report of its proof, too.

    Args:
        model: a module, or what names one, as :func:`dlzoo.zoo.sources.load.load_source` says.
        output: the bundle's folder; ``./NAME`` if absent.
        options: opset, axes, head, preprocessing.
        weights: as for :func:`dlzoo.build_model`; a module brings its own, if no file is given.
        seed: draws random weights, the inputs of the proof and the faults.
        inputs: name, shape and dtype of each input, for what no card describes.
        input_shape: in place of ``inputs``, one sample of the only one: (channels, height, width).
        num_classes: of a model that is built by name; the card's if absent.
        name: what the bundle is called; the model's name, or its class's, if absent.
        providers: where the proof runs.
        optimizations: ONNX Runtime's graph optimization levels of the proof.
        strict_special_values: let answers to inputs with NaN and infinities decide, too.
        force: replace a bundle that is already there.
        progress: called with each stage, each note, and how much of a download has arrived.

    Raises:
        DlzooError: what was asked cannot be delivered; nothing is written.
        DynamicAxisError: the graph is right at some sizes of an open axis and wrong at others;
            nothing is written.
        ProofError: the verdict is fail or vacuous; nothing is written, ``report`` of the error
            has the numbers.
    """
    options = options or ExportOptions()
    target = Path(output or _folder_name(model, name))
    clock = StageClock(progress)

    def passes_with(fixed: ExportOptions) -> bool:
        try:
            with tempfile.TemporaryDirectory() as elsewhere:
                export_and_report(
                    model,
                    Path(elsewhere) / "bundle",
                    options=fixed,
                    weights=weights,
                    seed=seed,
                    inputs=inputs,
                    num_classes=num_classes,
                    name=name,
                    providers=providers,
                    optimizations=optimizations,
                    strict_special_values=strict_special_values,
                )
        except DlzooError:
            return False
        return True

    # First of all: a target that is taken or cannot be written should not cost a minute.
    with staged_folder(target, BUNDLE, force=force) as folder:
        clock("build")
        if input_shape is not None:
            inputs = (InputSpec(name="input", shape=(1, *input_shape)),)
        source_options = SourceOptions(
            weights=weights,
            seed=seed,
            inputs=tuple(inputs),
            num_classes=num_classes,
            name=name,
            on_bytes=progress.download,
        )
        source = load_source(model, source_options)
        notes = list(source.notes)
        plan = ExportPlan(source, options)
        try:
            with in_eval_mode(source.network, notes):
                unproved = write_unproved(
                    folder, plan, seed=seed, providers=providers, clock=clock, notes=notes
                )
        except SizeError as failure:
            clock("locate", "try it with fixed sizes")
            raise plan.open_axis_error(
                is_batch=failure.is_batch,
                reason=str(failure),
                is_fix_proved=passes_with(plan.fixed_options),
            ) from None
        for note in notes:
            progress.note(note)
        # The sessions of the proof need the memory more: a model of the zoo goes now. What
        # torch.export traced holds it in reference cycles.
        del source, plan
        gc.collect()
        clock("verify")
        report = verify_bundle(
            Bundle(folder, unproved.manifest),
            providers=providers,
            optimizations=optimizations,
            strict_special_values=strict_special_values,
            power=unproved.power,
            progress=progress,
        )
        report = replace(report, seconds=clock.stop(), layers=unproved.layers)
        if not report:
            clock("locate", "the first wrong layer")
            bundle = Bundle(folder, unproved.manifest)
            plan = ExportPlan(load_source(model, source_options), options)
            with in_eval_mode(plan.source.network, []):
                wrong = find_wrong_sizes(report, bundle, plan.module, seed=seed)
                if wrong is None or not (wrong.is_batch or plan.is_image_size_open):
                    report = explain_failure(report, bundle, plan.module, bundle.golden_sets())
                    report = _name_silent_layer(report, bundle, plan.module)
                    raise ProofError(
                        f"{unproved.manifest.name}: the verdict is {report.verdict}, so nothing "
                        f"was written. {' '.join([report.explanation, *_culprits(report)])}",
                        report=report,
                    )
                culprit = find_culprit(wrong, bundle, plan.module)
            clock("locate", "try it with fixed sizes")
            reason = str(wrong)
            if culprit is not None:
                reason += f". The first wrong layer is {culprit}"
            raise plan.open_axis_error(
                is_batch=wrong.is_batch,
                reason=reason,
                is_fix_proved=passes_with(plan.fixed_options),
            )
        _write_documents(folder, unproved.manifest, report)
    return Bundle.open(target), report


def _culprits(report: Report) -> list[str]:
    return [f"{note[:1].upper()}{note[1:]}." for note in report.notes if "first wrong" in note]


def _name_silent_layer(report: Report, bundle: Bundle, module: nn.Module) -> Report:
    """A vacuous report with a reason that names the layer whose signal float32's own error covers."""
    dtypes = {spec.name: spec.dtype for spec in bundle.manifest.outputs}
    silent = sets_of_silent_sizes(bundle.golden_sets(), dtypes)
    if report.verdict != "vacuous" or not silent:
        return report
    names = [spec.name for spec in bundle.manifest.outputs]
    layer = first_silent_layer(module, silent[0].inputs, output_names=names)
    if layer is None:
        return report
    reason = (
        f"the first layer in which float32's own error is more than {VACUOUS_SHARE:.1%} of the "
        f"values is {layer}"
    )
    return replace(report, reasons=(*report.reasons, reason))


def _folder_name(model: str | nn.Module, name: str | None) -> str:
    """The default folder of a bundle: ``./vgg16``, ``./net`` for ``nets.py:net``."""
    if name is not None:
        return name
    if not isinstance(model, str):
        return type(model).__name__.lower()
    if (Path(model) / "recipe.toml").is_file():
        return f"{model}/bundle"  # of a training run
    return Path(model).stem if model.endswith(".pt2") else model.rpartition(":")[2]


def _write_documents(folder: Path, manifest: Manifest, report: Report) -> None:
    """parity.json for programs, report.html and MODEL_CARD.md for people."""
    parity = report.to_parity()
    write_parity(folder, parity)
    page = report_page(manifest, parity, report.seconds)
    (folder / "report.html").write_text(page, encoding="utf-8")
    card = model_card_from_manifest(manifest, parity)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
