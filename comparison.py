"""Where two models part: a network and its graph, two graphs, or one graph on two providers.

``export`` knows PyTorch's values, ``runtime`` the graph's, and neither imports the other
(docs/DESIGN.md, section 2), so what compares them lies above both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import nn

    from dlzoo.export.bundle import Bundle, GoldenSet
    from dlzoo.export.input_spec import InputSpec
    from dlzoo.runtime.culprit import Culprit
    from dlzoo.runtime.diff_base import Base
    from dlzoo.runtime.diff_report import DiffReport
    from dlzoo.runtime.report import Report

    Inputs = dict[str, npt.NDArray[Any]]

OnText = Callable[[str], None]

#: What a float32 model passes with; a card may say otherwise. Source: docs/DESIGN.md, 6.3.
RHO2_LIMIT, RHOMAX_LIMIT = 3.0, 6.0
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
    on_stage: OnText | None = None,
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
        on_stage: is told what is being done.

    Raises:
        ArgumentError: these cannot be compared.
        BundleError: a file is missing or damaged.
        ProviderError: a provider is missing or did not take the work.
    """
    from dlzoo.comparison_sides import (
        check_sides,
        graph_of,
        input_sets_of,
        is_graph,
        module_of,
    )
    from dlzoo.network_base import NetworkBase
    from dlzoo.runtime.diff_base import ModelBase
    from dlzoo.runtime.model_diff import compare_models
    from dlzoo.runtime.tapped_session import Setting, TappedModel
    from dlzoo.runtime.value_checks import Limits

    graphs = [graph_of(side) for side in (a, b) if is_graph(side)]
    networks = [side for side in (a, b) if side is not None and not is_graph(side)]
    check_sides(a, graphs, networks, b, providers)
    candidate = graphs[-1]
    model = TappedModel(candidate.path)
    limits = Limits(rho2=RHO2_LIMIT, rhomax=RHOMAX_LIMIT)
    bundle = next((graph.bundle for graph in reversed(graphs) if graph.bundle), None)
    if bundle is not None:
        limits = Limits(rho2=bundle.manifest.rho2_limit, rhomax=bundle.manifest.rhomax_limit)
    input_sets = input_sets_of(model, bundle, golden, inputs, seed)
    base: Base
    judged = tuple(dict.fromkeys(providers))
    if networks:
        module, title = module_of(networks[0], candidate, input_sets[0][1], weights, seed)
        asked: dict[str, Any] = {}
        if bundle is not None:
            asked = {
                "target": bundle.manifest.target,
                "lowerings": bundle.manifest.asked_lowerings,
            }
        base = NetworkBase(module, model.header, input_sets[0][1], title, **asked)
    elif b is None:
        setting = Setting(provider=judged[0], session_config=session_config or {})
        base = ModelBase(model, f"{candidate.title} on {judged[0]}", setting)
    else:
        base = ModelBase(TappedModel(graphs[0].path), graphs[0].title)
    return compare_models(
        model,
        candidate.title,
        base,
        input_sets,
        limits=limits,
        providers=judged,
        optimizations=optimizations,
        session_config=session_config,
        max_bytes=max_bytes,
        on_stage=on_stage,
    )


def first_wrong_layer(
    module: nn.Module,
    model_path: str | Path,
    inputs: Inputs,
    *,
    rho2_limit: float = RHO2_LIMIT,
    rhomax_limit: float = RHOMAX_LIMIT,
    providers: Sequence[str] = ("cpu",),
    optimizations: Sequence[str] = _ALL_LEVELS,
    target: str = "ort-cpu",
    lowerings: Mapping[str, str] | None = None,
    on_stage: OnText | None = None,
) -> Culprit | None:
    """The first layer of a network that its exported graph gets wrong; None where none is.

    ``str()`` of what comes back is one line: module path, source line, ONNX node and numbers.

    Args:
        module: what was exported, with preprocessing and head.
        model_path: the ``.onnx`` file that came out.
        inputs: by name, of finite numbers, on which the two are compared.
        rho2_limit: the largest rho2 that passes.
        rhomax_limit: the largest rhomax that passes.
        providers: where the graph is judged.
        optimizations: at which levels.
        target: as the graph was exported.
        lowerings: as the graph was exported.
        on_stage: is told what is being done.

    Raises:
        ExportError: the network cannot be traced.
        BundleError: the file is no sound model.
    """
    from dlzoo.network_base import NetworkBase
    from dlzoo.runtime.model_diff import compare_models
    from dlzoo.runtime.tapped_session import TappedModel
    from dlzoo.runtime.value_checks import Limits

    model = TappedModel(Path(model_path))
    name = type(module).__name__
    base = NetworkBase(module, model.header, inputs, name, target, lowerings)
    report = compare_models(
        model,
        Path(model_path).name,
        base,
        [("given", inputs)],
        limits=Limits(rho2=rho2_limit, rhomax=rhomax_limit),
        providers=providers,
        optimizations=optimizations,
        session_config=None,
        max_bytes=None,
        on_stage=on_stage,
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
    import numpy as np

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
        rho2_limit=manifest.rho2_limit,
        rhomax_limit=manifest.rhomax_limit,
        providers=[finite[0].provider],
        target=manifest.target,
        lowerings=manifest.asked_lowerings,
    )
    if culprit is None:
        return report
    return replace(report, notes=(*report.notes, f"the first wrong layer is {culprit}"))
