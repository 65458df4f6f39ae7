"""Check what a manifest declares against the model file and the golden data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.bundle.manifest_fields import AxisRange
from dlzoo.runtime.onnx_reader.onnx_header import OnnxHeader
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from dlzoo.runtime.session.custom_ops import custom_ops_of


def declaration_problems(bundle: Bundle, header: OnnxHeader) -> list[str]:
    """List where the model is not what the manifest says it is."""
    manifest = bundle.manifest
    problems = []
    if custom_ops_of(header) != manifest.custom_ops:
        problems.append(
            f"the model has the custom operators {_list_text(custom_ops_of(header))}, the manifest "
            f"says {_list_text(manifest.custom_ops)}"
        )
    if header.opset != manifest.opset:
        problems.append(
            f"the model has opset {header.opset}, the manifest says {manifest.opset}"
        )
    for role, declared, found in (
        ("inputs", manifest.inputs, header.inputs),
        ("outputs", manifest.outputs, header.outputs),
    ):
        if declared != found:
            problems.append(
                f"the model has {role} {_specs_text(found)}, the manifest says "
                f"{_specs_text(declared)}"
            )
    return problems


def _list_text(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _specs_text(specs: Sequence[TensorSpec]) -> str:
    return "; ".join(f"{s.name} {s.dtype} [{', '.join(map(str, s.dims))}]" for s in specs)


def replayed_axes(
    inputs: Sequence[TensorSpec],
    declared: Mapping[str, AxisRange],
    golden_sets: Sequence[GoldenSet],
) -> dict[str, dict[str, Any]]:
    """For every symbol its range, and the sizes of the golden sets whose inputs are numbers."""
    replayed: dict[str, set[int]] = {symbol: set() for symbol in declared}
    for golden in golden_sets:
        for spec in inputs:
            array = golden.inputs.get(spec.name)
            if not golden.is_finite or array is None or array.ndim != len(spec.dims):
                continue
            for dim, size in zip(spec.dims, array.shape, strict=True):
                if isinstance(dim, str) and dim in replayed:
                    replayed[dim].add(size)
    return {
        symbol: {"min": axis.min, "max": axis.max, "proved": sorted(replayed[symbol])}
        for symbol, axis in declared.items()
    }


def axis_problems(
    declared: Mapping[str, AxisRange], replayed: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Sizes that the manifest calls proved and that no golden set has."""
    problems = []
    for symbol, axis in declared.items():
        unproved = sorted(set(axis.proved) - set(replayed[symbol]["proved"]))
        if unproved or not axis.proved:
            sizes = ", ".join(map(str, unproved)) or "any size"
            problems.append(
                f"axis {symbol!r} is dynamic, and no golden data prove it at {sizes}"
            )
    return problems
