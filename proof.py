"""The main job: a network becomes a bundle, and the bundle proves itself.

``export`` may not import ``runtime`` (docs/DESIGN.md, section 2), so what needs both lives above
them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dlzoo.errors import ProofError

if TYPE_CHECKING:
    from torch import nn

    from dlzoo.export.bundle import AxisRange, Bundle, GoldenSet, Manifest
    from dlzoo.export.model_source import ModelSource
    from dlzoo.export.onnx_from_torch import ExportOptions, OnnxGraph
    from dlzoo.export.plan import ExportPlan
    from dlzoo.runtime.report import Power, Report
    from dlzoo.runtime.stage_clock import StageClock

OnText = Callable[[str], None]
OnBytes = Callable[[int, int], None]


def export_and_report(
    model: str | nn.Module,
    output: str | Path | None = None,
    *,
    options: ExportOptions | None = None,
    weights: str = "auto",
    seed: int = 0,
    input_shape: tuple[int, int, int] | None = None,
    name: str | None = None,
    providers: Sequence[str] = ("cpu",),
    optimizations: Sequence[str] = ("disabled", "basic", "all"),
    force: bool = False,
    on_stage: OnText | None = None,
    on_note: OnText | None = None,
    on_bytes: OnBytes | None = None,
) -> tuple[Bundle, Report]:
    """Export a model, and say how its proof went.

    Args:
        model: a name from :func:`dlzoo.list_models`, or a module that takes one
            ``[N, C, H, W]`` float32 tensor and gives one tensor with N rows.
        output: the bundle's folder; ``./NAME`` if absent.
        options: opset, axes, head, preprocessing.
        weights: as for :func:`dlzoo.build_model`; a module brings its own.
        seed: draws random weights, the inputs of the proof and the faults.
        input_shape: (channels, height, width) of a module's input.
        name: what a module's bundle is called; its class's name if absent.
        providers: where the proof runs.
        optimizations: ONNX Runtime's graph optimization levels of the proof.
        force: replace a bundle that is already there.
        on_stage: is told what runs now.
        on_note: is told what the user should know.
        on_bytes: is told how far a download is, in bytes done and in all.

    Raises:
        DlzooError: what was asked cannot be delivered; nothing is written.
        ProofError: the verdict is fail or vacuous; nothing is written, ``report`` of the error
            has the numbers.
    """
    from dlzoo.export.bundle import Bundle, new_bundle
    from dlzoo.export.onnx_from_torch import ExportOptions
    from dlzoo.export.plan import ExportPlan
    from dlzoo.export.tracing_state import in_eval_mode
    from dlzoo.runtime.stage_clock import StageClock
    from dlzoo.runtime.validate import verify_bundle

    options = options or ExportOptions()
    target = Path(output or name or _name_of(model))
    clock = StageClock(on_stage)
    # First of all: a target that is taken or cannot be written should not cost a minute.
    with new_bundle(target, force=force) as folder:
        clock("build")
        source = load_source(model, weights, seed, input_shape, name, on_bytes)
        notes: list[str] = []
        with in_eval_mode(source.network, notes):
            unproved = _write_unproved(
                folder,
                ExportPlan(source, options),
                seed=seed,
                providers=providers,
                clock=clock,
                notes=notes,
            )
        if on_note is not None:
            for note in notes:
                on_note(note)
        # The sessions of the proof need the memory more: a model of the zoo goes now. What
        # torch.export traced holds it in reference cycles.
        del source
        gc.collect()
        clock("verify")
        report = verify_bundle(
            Bundle(folder, unproved.manifest),
            providers=providers,
            optimizations=optimizations,
            power=unproved.power,
            on_stage=on_stage,
        )
        report = replace(report, seconds=clock.stop())
        _refuse_failed_sizes(unproved, report)
        if not report:
            raise ProofError(
                f"{unproved.manifest.name}: the verdict is {report.verdict}, so nothing was "
                f"written. {report.explanation}",
                report=report,
            )
        _write_papers(folder, unproved.manifest, report)
    return Bundle.open(target), report


@dataclass(frozen=True)
class _Unproved:
    """What lies in a folder that is not a bundle yet."""

    manifest: Manifest
    power: Power
    #: Image size of each golden set, where the size was to be dynamic.
    sizes: dict[str, tuple[int, int]]
    traced_size: tuple[int, int]


def _write_unproved(
    folder: Path,
    plan: ExportPlan,
    *,
    seed: int,
    providers: Sequence[str],
    clock: StageClock,
    notes: list[str],
) -> _Unproved:
    """Write the model, its golden data and its manifest, and measure the proof's power."""
    from dlzoo.export.bundle import write_golden_set, write_manifest

    if plan.source.weights["kind"] == "random":
        notes.append(f"{plan.source.name} has random weights (seed {seed}): untrained.")
    clock("export")
    graph = plan.export()
    notes.extend(graph.notes)
    clock("write")
    saved = graph.save(folder / "model.onnx")
    golden_sets = []
    for number, (kind, inputs) in enumerate(plan.golden_inputs(graph, seed)):
        clock("reference", f"PyTorch in float64, {kind}")
        golden = plan.golden_set(f"test_data_set_{number}", kind, inputs)
        write_golden_set(folder / "golden", golden, "float32")
        golden_sets.append(golden)
    clock("power")
    power = _measure_power(plan, graph, golden_sets[0], seed=seed)
    clock("hashes")
    manifest = write_manifest(
        folder,
        _manifest(plan, graph, golden_sets, providers),
        known_hashes=saved.files,
    )
    sizes: dict[str, tuple[int, int]] = {}
    if plan.options.image_size == "dynamic":
        for golden in golden_sets:
            height, width = golden.inputs[plan.input_name].shape[2:]
            sizes[golden.name] = (height, width)
    return _Unproved(manifest, power, sizes, plan.image_size)


def _name_of(model: str | nn.Module) -> str:
    return model if isinstance(model, str) else type(model).__name__.lower()


def load_source(
    model: str | nn.Module,
    weights: str,
    seed: int,
    input_shape: tuple[int, int, int] | None,
    name: str | None,
    on_bytes: OnBytes | None,
) -> ModelSource:
    from dlzoo.export.model_source import source_from_module, source_from_zoo

    if isinstance(model, str):
        return source_from_zoo(model, weights=weights, seed=seed, on_bytes=on_bytes)
    return source_from_module(model, name=name, input_shape=input_shape)


def _measure_power(
    plan: ExportPlan, graph: OnnxGraph, golden: GoldenSet, *, seed: int
) -> Power:
    """How many small faults in single weight tensors the comparison catches.

    The faulty outputs are PyTorch's own, in float32: would the rule have told them from right
    ones?
    """
    from dlzoo.export.faults import num_tensors_to_try
    from dlzoo.runtime.compare import UNIT_ROUNDOFFS, compare_outputs
    from dlzoo.runtime.report import Power
    from dlzoo.zoo.summary import summarize_model

    cost = summarize_model(plan.source.network, plan.source.input_shape).num_multiply_adds
    num_tensors = len(graph.parameters)
    verdicts = [
        compare_outputs(
            outputs,
            golden,
            dtypes={spec.name: spec.dtype for spec in graph.outputs},
            unit_roundoff=UNIT_ROUNDOFFS["float32"],
            rho2_limit=plan.source.rho2_limit,
            rhomax_limit=plan.source.rhomax_limit,
        )
        for _, outputs in plan.faulty_outputs(
            graph, golden, seed=seed, max_tensors=num_tensors_to_try(cost, num_tensors)
        )
    ]
    detected = sum(not verdict for verdict in verdicts)
    return Power(detected=detected, tried=len(verdicts), sampled_of=num_tensors)


def _refuse_failed_sizes(unproved: _Unproved, report: Report) -> None:
    """A model that is right at the traced size alone was asked for what it cannot be."""
    from dlzoo.export.plan import dynamic_size_error

    sizes = unproved.sizes
    failed = [result for result in report.candidates if result.verdict == "fail"]
    if sizes and failed and all(sizes[r.golden] != unproved.traced_size for r in failed):
        height, width = sizes[failed[0].golden]
        raise dynamic_size_error(
            unproved.manifest.name,
            unproved.traced_size,
            f"the exported model is wrong at {height}x{width}: {'; '.join(failed[0].reasons)}",
        )


def _proved_axes(graph: OnnxGraph, golden_sets: Sequence[GoldenSet]) -> dict[str, AxisRange]:
    """The dynamic axes, each with the sizes that the golden data have."""
    axes = {}
    for symbol, axis in graph.dynamic_axes.items():
        sizes = {
            golden.inputs[spec.name].shape[spec.dims.index(symbol)]
            for golden in golden_sets
            for spec in graph.inputs
            if symbol in spec.dims
        }
        axes[symbol] = replace(axis, proved=tuple(sorted(sizes)))
    return axes


def _manifest(
    plan: ExportPlan,
    graph: OnnxGraph,
    golden_sets: Sequence[GoldenSet],
    providers: Sequence[str],
) -> Manifest:
    import dlzoo
    from dlzoo.export.bundle import Manifest
    from dlzoo.runtime.divergence import declared_divergences

    source, options = plan.source, plan.options
    packages = ("torch", "onnx", "onnxscript", "numpy")
    return Manifest(
        name=source.name,
        card=source.card,
        opset=graph.opset,
        ir_version=graph.ir_version,
        inputs=graph.inputs,
        outputs=graph.outputs,
        dynamic_axes=_proved_axes(graph, golden_sets),
        preprocessing=None if plan.preprocessing is None else asdict(plan.preprocessing),
        preprocessing_included=options.include_preprocessing,
        head=options.head,
        labels=source.labels,
        lowering=graph.lowering,
        precision="float32",
        rho2_limit=source.rho2_limit,
        rhomax_limit=source.rhomax_limit,
        limit_reason=source.limit_reason,
        divergences=tuple(
            asdict(divergence)
            for provider in providers
            for divergence in declared_divergences(graph.num_nodes_by_op, provider)
        ),
        tools={"dlzoo": dlzoo.__version__, **{name: version(name) for name in packages}},
        weights=source.weights,
        files={},
    )


def _write_papers(folder: Path, manifest: Manifest, report: Report) -> None:
    """parity.json for programs, report.html and MODEL_CARD.md for people."""
    from dlzoo.export.bundle import write_parity
    from dlzoo.export.model_card import model_card_from_manifest
    from dlzoo.runtime.report_page import report_page

    parity = report.to_parity()
    write_parity(folder, parity)
    (folder / "report.html").write_text(report_page(manifest, parity), encoding="utf-8")
    card = model_card_from_manifest(manifest, parity)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
