"""The answers expected of a server's model: golden data of a bundle, or recorded test data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dlzoo.errors import ArgumentError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.golden_set import GoldenSet, read_test_data_set
from dlzoo.runtime.onnx_reader.onnx_header import read_onnx_header
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from dlzoo.runtime.proof.compare import UNIT_ROUNDOFFS
from dlzoo.runtime.proof.declarations import axis_problems, declaration_problems, replayed_axes
from dlzoo.runtime.proof.limits import Limits
from dlzoo.runtime.proof.recorded import (
    Tolerance,
    data_folders,
    floor_of,
    recorded_golden_sets,
)
from dlzoo.runtime.proof.report import Power, power_from_json
from dlzoo.runtime.proof.validate import coarsest_unit_roundoff


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """The answers expected of a server's model, and the rules to judge them by.

    ``inputs`` and ``outputs`` are None if only the golden data tell them.
    """

    name: str
    golden_sets: tuple[GoldenSet, ...]
    dtypes: Mapping[str, str]
    unit_roundoff: float
    limits: Limits
    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None
    opset: int = 0
    power: Power | None = None
    power_required: bool = False
    dynamic_axes: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def expectation_of(bundle: Bundle) -> Expectation:
    """Read the expected answers from a bundle's golden data.

    Raises:
        BundleError: a file is missing or changed, or the bundle holds no golden data.
    """
    manifest = bundle.manifest
    bundle.check_files()
    golden_sets = bundle.golden_sets()
    header = bundle.header
    axes = replayed_axes(manifest.inputs, manifest.dynamic_axes, golden_sets)
    return Expectation(
        name=manifest.name,
        golden_sets=tuple(golden_sets),
        dtypes={spec.name: spec.dtype for spec in manifest.outputs},
        unit_roundoff=UNIT_ROUNDOFFS[manifest.precision],
        limits=Limits.from_manifest(manifest),
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        opset=header.opset,
        power=power_from_json(bundle.parity().get("power")),
        power_required=True,
        dynamic_axes=axes,
        problems=(
            *declaration_problems(bundle, header),
            *axis_problems(manifest.dynamic_axes, axes),
        ),
    )


def recorded_expectation(
    path: Path | None,
    folder: Path,
    tolerance: Tolerance | None,
    *,
    model: str | None,
    limits: Limits,
) -> Expectation:
    """Read the expected answers from ONNX test data, with or without the model's file.

    Args:
        path: the ``.onnx`` file that the server should serve; None if it is not here.
        folder: a test-data folder, or one that holds several.
        tolerance: the caller's own bound; required without a file to estimate one from.
        model: the model's name on the server.
        limits: the limits of the verdict.

    Raises:
        ArgumentError: without a file, the model's name or the tolerance is missing.
        BundleError: the data are damaged, or belong to another model.
    """
    if path is not None:
        sets, notes = recorded_golden_sets(path, folder, limits=limits, tolerance=tolerance)
        header = read_onnx_header(path)
        return Expectation(
            name=path.stem,
            golden_sets=tuple(sets),
            dtypes={spec.name: spec.dtype for spec in header.outputs},
            unit_roundoff=coarsest_unit_roundoff(header.outputs),
            inputs=header.inputs,
            outputs=header.outputs,
            opset=header.opset,
            notes=(*notes, "power was not measured"),
            limits=limits,
        )
    if tolerance is None or model is None:
        raise ArgumentError(
            "Recorded data without a model file need `model` and a tolerance: `rtol` or `atol`. "
            "Give them, or the model file."
        )
    return _from_files_alone(folder, tolerance, model, limits)


def _from_files_alone(
    folder: Path, tolerance: Tolerance, model: str, limits: Limits
) -> Expectation:
    golden_sets: list[GoldenSet] = []
    dtypes: dict[str, str] = {}
    for place in data_folders(folder):
        inputs, outputs = read_test_data_set(place)
        if not all(name for name, _ in (*inputs, *outputs)):
            raise ArgumentError(
                f"{place} holds tensors without names, so they cannot be matched with inputs and "
                "outputs. Give the model file, too."
            )
        dtypes |= {name: array.dtype.name for name, array in outputs}
        golden_sets.append(
            GoldenSet(
                name=place.name,
                kind="recorded",
                inputs=dict(inputs),
                reference={name: array.astype(np.float64) for name, array in outputs},
                noise={name: floor_of(tolerance, array, limits) for name, array in outputs},
            )
        )
    known = [UNIT_ROUNDOFFS[dtype] for dtype in dtypes.values() if dtype in UNIT_ROUNDOFFS]
    return Expectation(
        name=model,
        golden_sets=tuple(golden_sets),
        dtypes=dtypes,
        unit_roundoff=max(known, default=UNIT_ROUNDOFFS["float32"]),
        limits=limits,
        notes=("the reference was recorded with another runtime", "power was not measured"),
    )
