"""Compare every layer of a fresh export with PyTorch's values, for report.html and parity.json.

The verdict does not rest on this: it shows where in the network the error arises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from dlzoo.errors import BundleError
from dlzoo.export.diff.traced_network import TracedNetwork, pair_values
from dlzoo.export.diff.traced_values import reference_values
from dlzoo.export.graph.onnx_graph import OnnxGraph
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.diff.value_checks import compare_value
from dlzoo.runtime.proof.layer_errors import LayerError, LayerErrors
from dlzoo.runtime.proof.limits import Limits
from dlzoo.runtime.session.run_settings import RunSettings
from dlzoo.runtime.session.tapped_session import TappedModel

#: Above this many multiply-adds, all layers in float64 and four times in float32 would cost too
#: large a share of the export: VGG-16 (15.5e9) would take half as long again.
MAX_MULTIPLY_ADDS = 5e9
#: How much of the model's values is held at a time, references counted in.
_CHUNK_BYTES = 2**27


def measure_layers(
    graph: OnnxGraph,
    model_path: Path,
    golden: GoldenSet,
    *,
    num_multiply_adds: int,
    limits: Limits,
    provider: str,
) -> LayerErrors:
    """Run the saved model once with all values tapped, and compare each with PyTorch's.

    Graph optimization is disabled: taps would undo its fusions anyway.

    Args:
        graph: what was exported, with the program that was traced.
        model_path: where it was saved.
        golden: finite inputs.
        num_multiply_adds: what one sample costs; above ``MAX_MULTIPLY_ADDS`` nothing is measured.
        limits: what a value passes with.
        provider: where it runs.

    Raises:
        BundleError: the file cannot be read.
        ProviderError: the provider is missing or did not take the work.
    """
    cost = num_multiply_adds * golden.batch
    if cost > MAX_MULTIPLY_ADDS:
        return LayerErrors(
            reason=f"the inputs cost {cost / 1e9:.1f} billion multiply-adds, and above "
            f"{MAX_MULTIPLY_ADDS / 1e9:.0f} billion an export does not look into every layer. "
            "To see them, run: dlzoo diff MODEL BUNDLE --report report.html"
        )
    network = TracedNetwork(graph.program)
    model = TappedModel(model_path)
    # Of floats only: a size that the graph computes may have the name of a traced operator.
    floats = model.values
    pairs = {v: p for v, p in pair_values(network, model.graph).items() if v in floats}
    settings = RunSettings(provider=provider, optimization="disabled")
    got = _TappedValues(model, list(pairs), golden.inputs, settings)
    partners: dict[str, list[str]] = {}
    for value, partner in pairs.items():
        partners.setdefault(partner, []).append(value)
    inputs = [golden.inputs[spec.name] for spec in graph.inputs]
    found: dict[str, LayerError] = {}
    try:
        # One value of PyTorch's at a time: all of them in float64 would take gigabytes.
        for partner, expected, noise in reference_values(network, partners, inputs):
            place = network.values[partner]
            for value in partners[partner]:
                found[value] = LayerError.from_difference(
                    compare_value(value, got.take(value), (expected, noise), limits),
                    model.graph.producers[value],
                    module=place.module_path,
                    source=place.source_line,
                )
    except BundleError as error:
        return LayerErrors(reason=str(error))  # the runs of the proof judge that
    except RuntimeError as error:
        # Nothing of the proof rests on this, so an operator without a float64 kernel stops it only.
        return LayerErrors(reason=f"PyTorch cannot run it in float64: {_first_line(error)}")
    ordered = [name for node in model.graph.nodes for name in node.outputs if name in found]
    return LayerErrors(
        provider=provider,
        optimization=settings.optimization,
        golden=golden.name,
        kind=golden.kind,
        batch=golden.batch,
        num_values=sum(bool(name) for node in model.graph.nodes for name in node.outputs),
        values=tuple(found[name] for name in ordered),
    )


class _TappedValues:
    """The model's own values, computed a chunk at a time when the first of it is asked for.

    All of them at once would take more memory than the rest of an export.
    """

    def __init__(
        self,
        model: TappedModel,
        names: Sequence[str],
        inputs: Mapping[str, npt.NDArray[Any]],
        settings: RunSettings,
    ) -> None:
        self._model, self._inputs, self._settings = model, inputs, settings
        chunks = model.chunks(names, inputs, _CHUNK_BYTES)
        self._chunk_of = {name: chunk for chunk in chunks for name in chunk}
        self._values: dict[str, Any] = {}

    def take(self, name: str) -> Any:
        """Return a value, and forget it.

        Raises:
            BundleError: the model cannot be run.
        """
        if name not in self._values:
            chunk = self._chunk_of[name]
            self._values |= self._model.run(self._inputs, chunk, self._settings)
        return self._values.pop(name)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
