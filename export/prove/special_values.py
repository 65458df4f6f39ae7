"""Answers to inputs with NaN and infinities: as in PyTorch, or the first node that differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.errors import ArgumentError, BundleError, ProviderError
from dlzoo.export.diff.traced_network import TracedNetwork, pair_values
from dlzoo.export.diff.traced_values import plain_values
from dlzoo.export.graph.onnx_graph import OnnxGraph
from dlzoo.export.prove.layer_proof import MAX_MULTIPLY_ADDS
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.proof.compare import compare_special_values
from dlzoo.runtime.proof.difference import class_difference, structure_problem
from dlzoo.runtime.session.run_settings import RunSettings
from dlzoo.runtime.session.tapped_session import TappedModel

Array = npt.NDArray[Any]


def describe_special_values(
    graph: OnnxGraph,
    model_path: Path,
    golden_sets: Sequence[GoldenSet],
    *,
    num_multiply_adds: int,
    provider: str,
) -> tuple[dict[str, Any], ...]:
    """Say of each golden set with NaN or infinities whether the graph answers as PyTorch does.

    Graph optimization is disabled. Where an output is finite, NaN or infinite in other places than
    PyTorch's in float32, the values between are compared in the same way, unless one run costs more
    than ``MAX_MULTIPLY_ADDS``.

    Args:
        graph: what was exported, with the program that was traced.
        model_path: where it was saved.
        golden_sets: of the proof; those of finite inputs are passed over.
        num_multiply_adds: what one sample costs.
        provider: where it runs.

    Returns:
        For each set ``kind``, ``provider``, ``same``, the ``outputs`` that differ, and of the first
        node that does it ``first_node``, ``module`` and ``source``, empty where it is not known;
        ``text`` says all of it in a sentence.

    Raises:
        ProviderError: the provider is missing.
    """
    special = [golden for golden in golden_sets if not golden.is_finite]
    if not special:
        return ()
    model = TappedModel(model_path)
    dtypes = {spec.name: spec.dtype for spec in graph.outputs}
    settings = RunSettings(provider=provider, optimization="disabled")
    entries = []
    for golden in special:
        entry: dict[str, Any] = {
            "kind": golden.kind,
            "provider": provider,
            "same": False,
            "outputs": [],
            "first_node": "",
            "module": "",
            "source": "",
        }
        try:
            outputs = model.run(golden.inputs, [], settings)
        except (ArgumentError, BundleError) as error:
            entry["text"] = f"{golden.kind}: {error}".rstrip(".")
            entries.append(entry)
            continue
        comparison = compare_special_values(outputs, golden, dtypes=dtypes)
        entry["outputs"] = [d.name for d in comparison.differences if not d]
        entry["same"] = not entry["outputs"]
        if entry["outputs"] and num_multiply_adds * golden.batch <= MAX_MULTIPLY_ADDS:
            entry |= _first_difference(graph, model, golden, settings)
        entries.append({**entry, "text": _sentence(entry)})
    return tuple(entries)


def _first_difference(
    graph: OnnxGraph, model: TappedModel, golden: GoldenSet, settings: RunSettings
) -> dict[str, str]:
    """The node that makes the first value with other classes than PyTorch's, and its place."""
    network = TracedNetwork(graph.program)
    floats = model.values
    pairs = {v: p for v, p in pair_values(network, model.graph).items() if v in floats}
    partners: dict[str, list[str]] = {}
    for value, partner in pairs.items():
        partners.setdefault(partner, []).append(value)
    try:
        got = model.run(golden.inputs, list(pairs), settings)
        inputs = [golden.inputs[spec.name] for spec in graph.inputs]
        wrong = {
            value
            for partner, plain in plain_values(network, partners, inputs)
            for value in partners[partner]
            if _differs(value, got.pop(value), plain)
        }
    except (BundleError, ProviderError, RuntimeError):
        return {}  # a tapped model may need more memory than there is: the outputs say enough
    for node in model.graph.nodes:
        for name in node.outputs:
            if name in wrong:
                place = network.values[pairs[name]]
                return {
                    "first_node": f"{node.op_type} {node.name}".strip(),
                    "module": place.module_path,
                    "source": place.source_line,
                }
    return {}


def _differs(name: str, array: Any, plain: Array) -> bool:
    y = plain.astype(np.float64)
    dtype = getattr(getattr(array, "dtype", None), "name", "")
    if structure_problem(array, y, dtype):
        return False
    return not class_difference(name, array, y)


def _sentence(entry: Mapping[str, Any]) -> str:
    if entry["same"]:
        return f"{entry['kind']}: as in PyTorch"
    names = ", ".join(map(repr, entry["outputs"]))
    outputs, verb = ("outputs", "are") if len(entry["outputs"]) > 1 else ("output", "is")
    text = f"{entry['kind']}: {outputs} {names} {verb} finite, NaN or Inf elsewhere than in PyTorch"
    if not entry["first_node"]:
        return text
    module = f"module {entry['module']!r}" if entry["module"] else "the network's forward"
    place = ", ".join(part for part in (module, entry["source"]) if part)
    return f"{text}; the first node that differs is {entry['first_node']} ({place})"
