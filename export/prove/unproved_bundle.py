"""The first half of the main job: write the model, its golden data and its manifest.

Nothing is proved yet; how small a fault the proof could see is measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from dlzoo.export.graph.onnx_graph import OnnxGraph
from dlzoo.export.plan.plan import ExportPlan
from dlzoo.export.prove.layer_proof import measure_layers
from dlzoo.export.reference.power import measure_power
from dlzoo.export.reference.proved_sizes import proved_axes
from dlzoo.runtime.bundle.bundle import write_manifest
from dlzoo.runtime.bundle.golden_set import GoldenSet, write_golden_set
from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.proof.layer_errors import LayerErrors
from dlzoo.runtime.proof.report import Power
from dlzoo.runtime.proof.stage_clock import StageClock
from dlzoo.runtime.session.installation import load_onnxruntime
from dlzoo.version import __version__


@dataclass(frozen=True)
class UnprovedBundle:
    """A folder that becomes a bundle once its proof passes."""

    manifest: Manifest
    power: Power
    layers: LayerErrors
    #: Image size of each golden set, where the size was to be dynamic.
    sizes: dict[str, tuple[int, int]]
    traced_size: tuple[int, int]


def write_unproved(
    folder: Path,
    plan: ExportPlan,
    *,
    seed: int,
    providers: Sequence[str],
    clock: StageClock,
    notes: list[str],
) -> UnprovedBundle:
    """Write the model, its golden data and its manifest, and measure the proof's power."""
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
    power = measure_power(
        plan.module,
        golden_sets,
        dtypes={spec.name: spec.dtype for spec in graph.outputs},
        limits=plan.limits,
        seed=seed,
        parameters=graph.parameters,
        num_multiply_adds=plan.num_multiply_adds,
    )
    clock("layers")
    layers = measure_layers(
        graph,
        folder / "model.onnx",
        golden_sets[0],
        num_multiply_adds=plan.num_multiply_adds,
        limits=plan.limits,
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
    return UnprovedBundle(manifest, power, layers, sizes, plan.image_size)


def _manifest(
    plan: ExportPlan,
    graph: OnnxGraph,
    golden_sets: Sequence[GoldenSet],
    providers: Sequence[str],
) -> Manifest:
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
        tools={
            "dlzoo": __version__,
            **{name: version(name) for name in packages},
            # By its own word: the package is called onnxruntime or onnxruntime-gpu.
            "onnxruntime": str(load_onnxruntime().__version__),
        },
        weights=source.weights,
        files={},
        custom_ops=graph.custom_ops,
    )
