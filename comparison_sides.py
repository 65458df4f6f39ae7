"""What a comparison is asked to compare: graphs, networks, and the inputs for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlzoo.errors import ArgumentError

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import nn

    from dlzoo.export.bundle import Bundle
    from dlzoo.export.input_spec import InputSpec
    from dlzoo.runtime.tapped_session import TappedModel

    Inputs = dict[str, npt.NDArray[Any]]

#: Of a bundle's golden inputs that are finite numbers, this many are compared.
_MAX_INPUT_SETS = 3
#: What an open axis of a bare .onnx file gets where nobody gave inputs.
_DRAWN_BATCH = 2


@dataclass(frozen=True)
class GraphSide:
    path: Path
    title: str
    bundle: Bundle | None


def is_graph(side: object) -> bool:
    """Whether it is a bundle or an .onnx file, and not a network."""
    from dlzoo.export.bundle import Bundle

    if isinstance(side, (Bundle, Path)):
        return True
    return isinstance(side, str) and (side.endswith(".onnx") or Path(side).is_dir())


def graph_of(side: object) -> GraphSide:
    from dlzoo.export.bundle import Bundle

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
            "Give for example --provider cpu --provider cuda."
        )


def input_sets_of(
    model: TappedModel,
    bundle: Bundle | None,
    golden: str | Path | None,
    asked: Sequence[InputSpec],
    seed: int,
) -> list[tuple[str, Inputs]]:
    """Finite inputs, each set with the name of its kind."""
    import numpy as np

    if golden is not None:
        from dlzoo.runtime.recorded import recorded_inputs

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
    from dlzoo.export.golden_inputs import golden_inputs

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
            f"inputs cannot be drawn. Give for example --input {spec.name}=2x{example}, or --golden "
            "DIR with input_0.pb."
        )
    sizes = dict.fromkeys(symbols, (_DRAWN_BATCH,))
    ranges = {spec.name: (spec.low, spec.high) for spec in asked}
    drawn = golden_inputs(specs, sizes=sizes, seed=seed, integer_ranges=ranges)
    return drawn[: _MAX_INPUT_SETS - 1]


def module_of(
    side: object, graph: GraphSide, inputs: Inputs, weights: str, seed: int
) -> tuple[nn.Module, str]:
    """The network with the head and preprocessing that the graph was exported with."""
    from torch import nn

    from dlzoo.export.bundled_network import load_bundled_network
    from dlzoo.export.input_spec import InputSpec
    from dlzoo.export.model_source import SourceOptions, load_source

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
