"""What a server's model must give: golden data of a bundle, or what somebody recorded."""

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
from dlzoo.runtime.proof.declarations import axis_faults, declaration_faults, replayed_axes
from dlzoo.runtime.proof.divergence import DIVERGENCES, Divergence
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
    """What a server's model must give: the golden data, and the rules to judge by.

    ``inputs`` and ``outputs`` are None where only the golden data say what they are.
    """

    name: str
    golden_sets: tuple[GoldenSet, ...]
    dtypes: Mapping[str, str]
    unit_roundoff: float
    rho2_limit: float
    rhomax_limit: float
    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None
    divergences: tuple[Divergence, ...] = ()
    opset: int = 0
    power: Power | None = None
    power_required: bool = False
    dynamic_axes: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def expectation_of(bundle: Bundle) -> Expectation:
    """What a bundle proves of itself.

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
        rho2_limit=manifest.rho2_limit,
        rhomax_limit=manifest.rhomax_limit,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        divergences=_divergences_anywhere(header.num_nodes_by_op),
        opset=header.opset,
        power=power_from_json(bundle.parity().get("power")),
        power_required=True,
        dynamic_axes=axes,
        faults=(
            *declaration_faults(bundle, header),
            *axis_faults(manifest.dynamic_axes, axes),
        ),
    )


def _divergences_anywhere(ops: Mapping[str, int]) -> tuple[Divergence, ...]:
    """Those declared for any provider: a server does not say which one it runs."""
    return tuple(divergence for divergence in DIVERGENCES if divergence.op in ops)


def recorded_expectation(
    path: Path | None,
    folder: Path,
    tolerance: Tolerance | None,
    *,
    model: str | None,
    rho2_limit: float,
    rhomax_limit: float,
) -> Expectation:
    """What ONNX test data say, with the model file beside it or without.

    Args:
        path: the ``.onnx`` file that the server should serve; None where there is none here.
        folder: a test-data folder, or one that holds several.
        tolerance: the caller's own bound; needed where there is no file to estimate one from.
        model: the model's name on the server.
        rho2_limit: the limit of the verdict.
        rhomax_limit: likewise.

    Raises:
        ArgumentError: there is nothing to name the model or to judge by.
        BundleError: the data are damaged, or are not those of this model.
    """
    limits: dict[str, Any] = {"rho2_limit": rho2_limit, "rhomax_limit": rhomax_limit}
    if path is not None:
        sets, notes = recorded_golden_sets(path, folder, tolerance=tolerance, **limits)
        header = read_onnx_header(path)
        return Expectation(
            name=path.stem,
            golden_sets=tuple(sets),
            dtypes={spec.name: spec.dtype for spec in header.outputs},
            unit_roundoff=coarsest_unit_roundoff(header.outputs),
            inputs=header.inputs,
            outputs=header.outputs,
            divergences=_divergences_anywhere(header.num_nodes_by_op),
            opset=header.opset,
            notes=(*notes, "power was not measured"),
            **limits,
        )
    if tolerance is None or model is None:
        raise ArgumentError(
            "--server with --golden and no model file needs --model and a tolerance: --rtol or "
            "--atol. Give them, or the model file."
        )
    return _from_files_alone(folder, tolerance, model, limits)


def _from_files_alone(
    folder: Path, tolerance: Tolerance, model: str, limits: Mapping[str, float]
) -> Expectation:
    golden_sets: list[GoldenSet] = []
    dtypes: dict[str, str] = {}
    for place in data_folders(folder):
        inputs, outputs = read_test_data_set(place)
        if not all(name for name, _ in (*inputs, *outputs)):
            raise ArgumentError(
                f"{place} holds tensors without a name, so nothing says which input is which. "
                "Give the model file, too."
            )
        dtypes |= {name: array.dtype.name for name, array in outputs}
        golden_sets.append(
            GoldenSet(
                name=place.name,
                kind="recorded",
                inputs=dict(inputs),
                reference={name: array.astype(np.float64) for name, array in outputs},
                noise={
                    name: floor_of(
                        tolerance, array, limits["rho2_limit"], limits["rhomax_limit"]
                    )
                    for name, array in outputs
                },
            )
        )
    known = [UNIT_ROUNDOFFS[dtype] for dtype in dtypes.values() if dtype in UNIT_ROUNDOFFS]
    return Expectation(
        name=model,
        golden_sets=tuple(golden_sets),
        dtypes=dtypes,
        unit_roundoff=max(known, default=UNIT_ROUNDOFFS["float32"]),
        rho2_limit=limits["rho2_limit"],
        rhomax_limit=limits["rhomax_limit"],
        notes=("the reference is what another runtime recorded", "power was not measured"),
    )
