"""Find where two models diverge: a network and its graph, two graphs, or one graph on two providers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from dlzoo.errors import ArgumentError
from dlzoo.export.diff.network_reference import NetworkReference
from dlzoo.export.plan.bundled_network import load_bundled_network
from dlzoo.export.reference.golden_inputs import golden_inputs
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.diff.culprit import Culprit
from dlzoo.runtime.diff.diff_report import DiffReport
from dlzoo.runtime.diff.model_diff import compare_models
from dlzoo.runtime.diff.reference import GraphReference
from dlzoo.runtime.proof.limits import DEFAULT_LIMITS, Limits
from dlzoo.runtime.proof.progress import SILENT, Progress
from dlzoo.runtime.proof.recorded import recorded_inputs
from dlzoo.runtime.proof.report import Report
from dlzoo.runtime.session.run_settings import RunSettings
from dlzoo.runtime.session.tapped_session import TappedModel
from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.load import load_source
from dlzoo.zoo.sources.source import SourceOptions

Inputs = dict[str, npt.NDArray[Any]]

_ALL_LEVELS = ("disabled", "basic", "extended", "all")


def diff(
    a: str | Path | nn.Module | Bundle,
    b: str | Path | nn.Module | Bundle | None = None,
    *,
    providers: Sequence[str] = ("cpu",),
    optimizations: Sequence[str] = _ALL_LEVELS,
    golden: str | Path | None = None,
    inputs: Sequence[InputSpec] = (),
    weights: str = "auto",
    seed: int = 0,
    session_config: Mapping[str, str] | None = None,
    max_bytes: int | None = None,
    progress: Progress = SILENT,
) -> DiffReport:
    """Compare two models value by value, and say which node makes the first wrong one.

    One of the two may be a network in PyTorch, which then is the reference, in float64; else
    ``a`` is, as ONNX Runtime computes it on the CPU with graph optimization disabled. Without
    ``b``, ``a`` on the first provider is the reference for the others.

    >>> import dlzoo
    >>> report = dlzoo.diff("vgg16", "bundles/vgg16")  # doctest: +SKIP
    >>> print(report.verdict, report.explanation)  # doctest: +SKIP

    Args:
        a: a bundle or its folder, an ``.onnx`` file, a module or what names one.
        b: another one.
        providers: where the graphs are judged.
        optimizations: ONNX Runtime's graph optimization levels.
        golden: inputs for bare ``.onnx`` files: a folder of ``input_N.pb``.
        inputs: shapes of inputs to draw, where the file leaves sizes open.
        weights: of a network that is named, as for :func:`dlzoo.build_model`.
        seed: draws random weights, and inputs where there are none.
        session_config: ONNX Runtime's session configuration entries.
        max_bytes: how much of all values is held at a time.
        progress: called with the name of each stage.

    Raises:
        ArgumentError: these cannot be compared.
        BundleError: a file is missing or damaged.
        ProviderError: a provider is missing or did not take the work.
    """
    graphs = [graph_of(side) for side in (a, b) if is_graph(side)]
    networks = [side for side in (a, b) if side is not None and not is_graph(side)]
    check_sides(a, graphs, networks, b, providers)
    candidate = graphs[-1]
    model = TappedModel(candidate.path)
    limits = Limits()
    bundle = next((graph.bundle for graph in reversed(graphs) if graph.bundle), None)
    if bundle is not None:
        limits = Limits.from_manifest(bundle.manifest)
    input_sets = input_sets_of(model, bundle, golden, inputs, seed)
    reference: NetworkReference | GraphReference
    judged = tuple(dict.fromkeys(providers))
    if networks:
        module, title = module_of(networks[0], candidate, input_sets[0][1], weights, seed)
        reference = NetworkReference(module, model.header, input_sets[0][1], title)
        if bundle is not None:
            reference.target = bundle.manifest.target
            reference.lowerings = bundle.manifest.asked_lowerings
    elif b is None:
        settings = RunSettings(
            provider=judged[0], optimization="disabled", session_config=session_config or {}
        )
        reference = GraphReference(model, f"{candidate.title} on {judged[0]}", settings)
    else:
        reference = GraphReference(TappedModel(graphs[0].path), graphs[0].title)
    return compare_models(
        model,
        candidate.title,
        reference,
        input_sets,
        limits=limits,
        providers=judged,
        optimizations=optimizations,
        session_config=session_config,
        max_bytes=max_bytes,
        progress=progress,
    )


def first_wrong_layer(
    module: nn.Module,
    model_path: str | Path,
    inputs: Inputs,
    *,
    limits: Limits = DEFAULT_LIMITS,
    providers: Sequence[str] = ("cpu",),
    optimizations: Sequence[str] = _ALL_LEVELS,
    target: str = "ort-cpu",
    lowerings: Mapping[str, str] | None = None,
    progress: Progress = SILENT,
) -> Culprit | None:
    """The first layer of a network that its exported graph gets wrong; None where none is.

    ``str()`` of what comes back is one line: module path, source line, ONNX node and numbers.

    Args:
        module: what was exported, with preprocessing and head.
        model_path: the ``.onnx`` file that came out.
        inputs: by name, of finite numbers, on which the two are compared.
        limits: the largest rho2 and rhomax that pass.
        providers: where the graph is judged.
        optimizations: at which levels.
        target: as the graph was exported.
        lowerings: as the graph was exported.
        progress: called with the name of each stage.

    Raises:
        ExportError: the network cannot be traced.
        BundleError: the file is not a sound model.
    """
    model = TappedModel(Path(model_path))
    name = type(module).__name__
    reference = NetworkReference(module, model.header, inputs, name, target, lowerings)
    report = compare_models(
        model,
        Path(model_path).name,
        reference,
        [("given", inputs)],
        limits=limits,
        providers=providers,
        optimizations=optimizations,
        session_config=None,
        max_bytes=None,
        progress=progress,
    )
    return report.culprits[0] if report.culprits else None


def explain_failure(
    report: Report, bundle: Bundle, module: nn.Module, golden_sets: Sequence[GoldenSet]
) -> Report:
    """A failed report with a note that names the first wrong layer; as it is where none is found.

    Args:
        report: of the bundle.
        bundle: that failed.
        module: what it was exported from, with head and preprocessing.
        golden_sets: what the report is about.
    """
    by_name = {golden.name: golden.inputs for golden in golden_sets}
    finite = [
        result
        for result in report.candidates
        if result.verdict == "fail"
        and result.golden in by_name
        and all(np.isfinite(x).all() for x in by_name[result.golden].values())
    ]
    if report.verdict != "fail" or not finite:
        return report
    manifest = bundle.manifest
    culprit = first_wrong_layer(
        module,
        bundle.model_path,
        by_name[finite[0].golden],
        limits=Limits.from_manifest(manifest),
        providers=[finite[0].provider],
        target=manifest.target,
        lowerings=manifest.asked_lowerings,
    )
    if culprit is None:
        return report
    return replace(report, notes=(*report.notes, f"the first wrong layer is {culprit}"))


#: Of a bundle's golden inputs that are finite numbers, this many are compared.
_MAX_INPUT_SETS = 3


#: The size of an open axis of a bare .onnx file where no inputs are given.
_DRAWN_BATCH = 2


@dataclass(frozen=True)
class GraphSide:
    path: Path
    title: str
    bundle: Bundle | None


def is_graph(side: object) -> bool:
    """Whether it is a bundle or an .onnx file, and not a network."""
    if isinstance(side, (Bundle, Path)):
        return True
    return isinstance(side, str) and (side.endswith(".onnx") or Path(side).is_dir())


def graph_of(side: object) -> GraphSide:
    if isinstance(side, Bundle):
        return GraphSide(side.model_path, side.path.name, side)
    assert isinstance(side, (str, Path))
    path = Path(side)
    if path.suffix == ".onnx":
        return GraphSide(path, path.name, None)
    bundle = Bundle.open(path)
    return GraphSide(bundle.model_path, path.name or str(path), bundle)


def check_sides(
    a: object,
    graphs: Sequence[GraphSide],
    networks: Sequence[object],
    b: object,
    providers: Sequence[str],
) -> None:
    if len(networks) == 2 or not graphs:
        raise ArgumentError(
            f"diff got {' and '.join(map(repr, networks))}, expected at least one bundle or "
            ".onnx file. Export the network first: dlzoo export MODEL."
        )
    if b is None and len(set(providers)) < 2:
        raise ArgumentError(
            f"diff got {a!s} alone on one provider, expected a second model or a second provider. "
            'Give for example `providers=("cpu", "cuda")`.'
        )


def input_sets_of(
    model: TappedModel,
    bundle: Bundle | None,
    golden: str | Path | None,
    asked: Sequence[InputSpec],
    seed: int,
) -> list[tuple[str, Inputs]]:
    """Finite inputs, each set with the name of its kind."""
    if golden is not None:
        return recorded_inputs(model.path, Path(golden))
    if bundle is not None:
        finite = [
            (golden_set.kind, golden_set.inputs)
            for golden_set in bundle.golden_sets()
            if all(np.isfinite(x).all() for x in golden_set.inputs.values())
            and set(golden_set.inputs) == set(model.graph.inputs)
        ]
        if finite:
            return [*finite[: _MAX_INPUT_SETS - 1], *finite[_MAX_INPUT_SETS - 1 :][-1:]]
    shapes = {spec.name: spec.shape for spec in asked}
    specs = [
        replace(spec, dims=shapes.get(spec.name, spec.dims)) for spec in model.header.inputs
    ]
    symbols = {dim for spec in specs for dim in spec.dims if isinstance(dim, str)}
    firsts = {spec.dims[0] for spec in specs if spec.dims}
    if symbols - firsts:
        spec = next(s for s in specs if set(s.dims) & (symbols - firsts))
        example = "x".join("64" if isinstance(dim, str) else str(dim) for dim in spec.dims[1:])
        raise ArgumentError(
            f"{model.path.name} leaves the sizes {', '.join(sorted(symbols - firsts))} open, so "
            f"inputs cannot be drawn. Give their shapes as `inputs`, for example "
            f"{spec.name}=2x{example}, or "
            "`golden`: a folder with input_0.pb."
        )
    sizes = dict.fromkeys(symbols, (_DRAWN_BATCH,))
    ranges = {spec.name: (spec.low, spec.high) for spec in asked}
    drawn = golden_inputs(specs, sizes=sizes, seed=seed, integer_ranges=ranges)
    return drawn[: _MAX_INPUT_SETS - 1]


def module_of(
    side: object, graph: GraphSide, inputs: Inputs, weights: str, seed: int
) -> tuple[nn.Module, str]:
    """The network with the head and preprocessing that the graph was exported with."""
    title = type(side).__name__ if isinstance(side, nn.Module) else str(side)
    model = side if isinstance(side, nn.Module) else title
    if graph.bundle is not None:
        manifest = graph.bundle.manifest
        return load_bundled_network(manifest, model, weights=weights, seed=seed), title
    if isinstance(model, nn.Module):
        return model, title
    specs = tuple(
        InputSpec(name=name, shape=x.shape, dtype=x.dtype.name) for name, x in inputs.items()
    )
    options = SourceOptions(weights=weights, seed=seed, default_inputs=specs)
    return load_source(model, options).network, title
