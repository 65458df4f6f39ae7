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

    from dlzoo.export.bundle import Bundle, GoldenSet, Manifest
    from dlzoo.export.input_spec import InputSpec
    from dlzoo.export.onnx_from_torch import ExportOptions, OnnxGraph
    from dlzoo.export.plan import ExportPlan
    from dlzoo.runtime.layer_errors import LayerErrors
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
    inputs: Sequence[InputSpec] = (),
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
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
        model: a module, or what names one, as :func:`dlzoo.export.model_source.load_source` says.
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
        force: replace a bundle that is already there.
        on_stage: is told what runs now.
        on_note: is told what the user should know.
        on_bytes: is told how far a download is, in bytes done and in all.

    Raises:
        DlzooError: what was asked cannot be delivered; nothing is written.
        ProofError: the verdict is fail or vacuous; nothing is written, ``report`` of the error
            has the numbers.
    """
    from dlzoo.comparison import explain_failure
    from dlzoo.export.bundle import Bundle, new_bundle
    from dlzoo.export.bundled_network import wrap_as_bundled
    from dlzoo.export.input_spec import InputSpec
    from dlzoo.export.model_source import SourceOptions, load_source
    from dlzoo.export.onnx_from_torch import ExportOptions
    from dlzoo.export.plan import ExportPlan
    from dlzoo.export.tracing_state import in_eval_mode
    from dlzoo.runtime.stage_clock import StageClock
    from dlzoo.runtime.validate import verify_bundle

    options = options or ExportOptions()
    target = Path(output or _folder_name(model, name))
    clock = StageClock(on_stage)
    # First of all: a target that is taken or cannot be written should not cost a minute.
    with new_bundle(target, force=force) as folder:
        clock("build")
        if input_shape is not None:
            inputs = (InputSpec(name="input", shape=(1, *input_shape)),)
        source_options = SourceOptions(
            weights=weights,
            seed=seed,
            inputs=tuple(inputs),
            num_classes=num_classes,
            name=name,
            on_bytes=on_bytes,
        )
        source = load_source(model, source_options)
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
        report = replace(report, seconds=clock.stop(), layers=unproved.layers)
        _refuse_failed_sizes(unproved, report)
        if not report:
            clock("locate", "the first wrong layer")
            bundle = Bundle(folder, unproved.manifest)
            with in_eval_mode(network := load_source(model, source_options).network, []):
                module = wrap_as_bundled(unproved.manifest, network)
                report = explain_failure(report, bundle, module, bundle.golden_sets())
            raise ProofError(
                f"{unproved.manifest.name}: the verdict is {report.verdict}, so nothing was "
                f"written. {' '.join([report.explanation, *_culprits(report)])}",
                report=report,
            )
        _write_papers(folder, unproved.manifest, report)
    return Bundle.open(target), report


def _culprits(report: Report) -> list[str]:
    return [f"{note[:1].upper()}{note[1:]}." for note in report.notes if "first wrong" in note]


@dataclass(frozen=True)
class _Unproved:
    """What lies in a folder that is not a bundle yet."""

    manifest: Manifest
    power: Power
    layers: LayerErrors
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
    from dlzoo.layer_proof import measure_layers
    from dlzoo.runtime.value_checks import Limits

    if plan.source.fixed_batch is not None:
        notes.append(
            f"{plan.source.name} was traced for a batch of {plan.source.fixed_batch}, and the "
            "bundle takes no other."
        )
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
    clock("layers")
    layers = measure_layers(
        graph,
        folder / "model.onnx",
        golden_sets[0],
        num_multiply_adds=plan.num_multiply_adds,
        limits=Limits(rho2=plan.source.rho2_limit, rhomax=plan.source.rhomax_limit),
        provider=providers[0],
    )
    clock("hashes")
    manifest = write_manifest(
        folder,
        _manifest(plan, graph, golden_sets, providers),
        known_hashes=saved.files,
    )
    sizes = {}
    for golden in golden_sets:
        size = plan.image_size_of(golden.inputs)
        if size is not None:
            sizes[golden.name] = size
    return _Unproved(manifest, power, layers, sizes, plan.image_size)


def _folder_name(model: str | nn.Module, name: str | None) -> str:
    """Where a bundle goes if nobody says: ``./vgg16``, ``./net`` for ``nets.py:net``."""
    if name is not None:
        return name
    if not isinstance(model, str):
        return type(model).__name__.lower()
    if (Path(model) / "recipe.toml").is_file():
        return f"{model}/bundle"  # of a training run
    return Path(model).stem if model.endswith(".pt2") else model.rpartition(":")[2]


def _measure_power(
    plan: ExportPlan, graph: OnnxGraph, golden: GoldenSet, *, seed: int
) -> Power:
    from dlzoo.export.faults import iter_gross_outputs, num_tensors_to_try
    from dlzoo.runtime.power import judge_faults

    num_tensors = len(graph.parameters)
    return judge_faults(
        plan.faulty_outputs(
            graph,
            golden,
            seed=seed,
            max_tensors=num_tensors_to_try(plan.num_multiply_adds, num_tensors),
        ),
        lambda tensors: iter_gross_outputs(
            plan.module, golden.inputs, output_names=plan.output_names, tensors=tensors
        ),
        golden,
        dtypes={spec.name: spec.dtype for spec in graph.outputs},
        sampled_of=num_tensors,
        rho2_limit=plan.source.rho2_limit,
        rhomax_limit=plan.source.rhomax_limit,
    )


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


def _manifest(
    plan: ExportPlan,
    graph: OnnxGraph,
    golden_sets: Sequence[GoldenSet],
    providers: Sequence[str],
) -> Manifest:
    import dlzoo
    from dlzoo.export.bundle import Manifest
    from dlzoo.export.proved_sizes import proved_axes
    from dlzoo.runtime.divergence import declared_divergences
    from dlzoo.runtime.installation import load_onnxruntime

    source, options = plan.source, plan.options
    packages = ("torch", "onnx", "onnxscript", "numpy")
    return Manifest(
        name=source.name,
        card=source.card,
        opset=graph.opset,
        ir_version=graph.ir_version,
        inputs=graph.inputs,
        outputs=graph.outputs,
        dynamic_axes=proved_axes(graph.inputs, graph.dynamic_axes, golden_sets),
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
        tools={
            "dlzoo": dlzoo.__version__,
            **{name: version(name) for name in packages},
            # By its own word: the package is called onnxruntime or onnxruntime-gpu.
            "onnxruntime": str(load_onnxruntime().__version__),
        },
        weights=source.weights,
        files={},
        custom_ops=graph.custom_ops,
    )


def _write_papers(folder: Path, manifest: Manifest, report: Report) -> None:
    """parity.json for programs, report.html and MODEL_CARD.md for people."""
    from dlzoo.export.bundle import write_parity
    from dlzoo.export.model_card import model_card_from_manifest
    from dlzoo.runtime.pages.report_page import report_page

    parity = report.to_parity()
    write_parity(folder, parity)
    page = report_page(manifest, parity, report.seconds)
    (folder / "report.html").write_text(page, encoding="utf-8")
    card = model_card_from_manifest(manifest, parity)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
