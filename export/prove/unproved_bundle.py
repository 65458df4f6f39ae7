"""The first half of the main job: write the model, its golden data and its manifest.

Nothing is proved yet; how small a fault the proof could see is measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dlzoo.export.graph.onnx_graph import OnnxGraph
from dlzoo.export.plan.plan import ExportPlan
from dlzoo.export.prove.layer_proof import measure_layers
from dlzoo.export.prove.special_values import describe_special_values
from dlzoo.export.reference.complete_golden_sets import Array, complete_golden_sets
from dlzoo.export.reference.golden_inputs import SMALL_SCALES, ordinary_inputs
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

    def compute(number: int, kind: str, inputs: dict[str, Array]) -> GoldenSet:
        clock("reference", f"PyTorch in float64, {kind}")
        golden = plan.golden_set(f"test_data_set_{number}", kind, inputs)
        write_golden_set(folder / "golden", golden, "float32")
        return golden

    dtypes = {spec.name: spec.dtype for spec in graph.outputs}
    golden_sets = complete_golden_sets(
        plan.golden_inputs(graph, seed), compute, dtypes=dtypes, seed=seed
    )
    clock("power")
    power = _power(plan, graph, golden_sets, seed)
    for scale in SMALL_SCALES:
        kind, inputs = ordinary_inputs(golden_sets[0].inputs, seed=seed, scale=scale)
        if power.is_sufficient or not any(x.dtype.kind == "f" for x in inputs.values()):
            break
        golden_sets.append(compute(len(golden_sets), kind, inputs))
        clock("power", kind)
        power = _power(plan, graph, golden_sets, seed)
    clock("layers")
    layers = measure_layers(
        graph,
        folder / "model.onnx",
        golden_sets[0],
        num_multiply_adds=plan.num_multiply_adds,
        limits=plan.limits,
        provider=providers[0],
    )
    clock("special values")
    special_values = describe_special_values(
        graph,
        folder / "model.onnx",
        golden_sets,
        num_multiply_adds=plan.num_multiply_adds,
        provider=providers[0],
    )
    clock("hashes")
    manifest = write_manifest(
        folder,
        _manifest(plan, graph, golden_sets, special_values),
        known_hashes=saved.files,
    )
    return UnprovedBundle(manifest, power, layers)


def _power(
    plan: ExportPlan, graph: OnnxGraph, golden_sets: Sequence[GoldenSet], seed: int
) -> Power:
    return measure_power(
        plan.module,
        golden_sets,
        dtypes={spec.name: spec.dtype for spec in graph.outputs},
        limits=plan.limits,
        seed=seed,
        parameters=graph.parameters,
        num_multiply_adds=plan.num_multiply_adds,
    )


def _manifest(
    plan: ExportPlan,
    graph: OnnxGraph,
    golden_sets: Sequence[GoldenSet],
    special_values: tuple[dict[str, Any], ...],
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
        target=options.target,
        asked_lowerings=dict(options.lowerings),
        integer_ranges={
            spec.name: (spec.low, spec.high)
            for spec in plan.inputs
            if np.dtype(spec.dtype).kind in "iub" and spec.dtype != "uint8"
        },
        special_values=special_values,
    )
