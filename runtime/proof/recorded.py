"""Recorded outputs as golden data: for a model that comes without its float64 reference.

ONNX's own test data hold what some other runtime computed in float32, without a noise floor.
The floor is estimated from the model itself: how far its outputs move when its inputs do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.errors import ArgumentError, BundleError
from dlzoo.runtime.bundle.golden_set import GoldenSet, NoiseFloor, read_test_data_set
from dlzoo.runtime.onnx_reader.onnx_header import read_onnx_header
from dlzoo.runtime.proof.difference import root_mean_square
from dlzoo.runtime.proof.limits import Limits
from dlzoo.runtime.proof.progress import SILENT, Progress
from dlzoo.runtime.session.custom_ops import AUTO
from dlzoo.runtime.session.session import Session, open_session

Arrays = dict[str, npt.NDArray[Any]]

#: Every input element moves by this many units of its last place, up or down. Over 11 networks of
#: the zoo at input scales 1 and 50, PyTorch's float32 outputs then lie at rho2 0.5 to 1.6 from
#: ONNX Runtime's and at rhomax 0.4 to 3.1, and any weight tensor that is off by a thousandth fails.
_STEPS = 2
MOVE_SEEDS = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """A caller's own bound in place of the estimate: ``atol + rtol * max|recorded|``, per output."""

    rtol: float
    atol: float

    def __post_init__(self) -> None:
        if not (0 <= self.rtol < np.inf and 0 <= self.atol < np.inf and self.rtol + self.atol):
            raise ArgumentError(
                f"The tolerance got rtol {self.rtol} and atol {self.atol}, expected finite numbers "
                "from 0 up, one of them above 0."
            )


def recorded_golden_sets(
    path: Path,
    folder: Path,
    *,
    limits: Limits,
    tolerance: Tolerance | None = None,
    native_library: str | Path = AUTO,
    progress: Progress = SILENT,
) -> tuple[list[GoldenSet], list[str]]:
    """Read ONNX test data for a model as golden sets: (the sets, what a reader should know).

    Without a tolerance, the noise floor of a set is, with f the model on the CPU with graph
    optimization disabled, x its inputs and x_k the inputs with every float element moved by two
    units in the last place, up or down at random:

    rms = max_k RMS(f(x_k) - f(x)), max = max_k max|f(x_k) - f(x)|, k = 1 … 3

    to which the comparison adds u·RMS and u·max of the outputs as always. It measures how the
    model magnifies rounding errors; the recorded outputs do not enter into it, nor does the
    optimizer or another provider, so an error in those cannot widen it.

    Args:
        path: the model.
        folder: a test-data folder (``input_0.pb``, ``output_0.pb``), or one that holds several.
        limits: those that the sets will be judged by.
        tolerance: the caller's own bound in place of the estimate.
        native_library: kernels for operators of domain ``dlzoo``, as for ``open_session``.
        progress: called with the name of each stage.

    Raises:
        BundleError: the data are damaged, or are not those of this model.
        ArgumentError: there is nothing to estimate from; a tolerance must be named.
    """
    session = open_session(path, "cpu", optimization="disabled", native_library=native_library)
    sets, notes = [], []
    for place in data_folders(folder):
        inputs, recorded = _named(session, place)
        if tolerance is not None:
            noise = {
                name: floor_of(tolerance, array, limits) for name, array in recorded.items()
            }
        else:
            progress.stage(f"noise floor of {place.name}")
            noise = _estimated_noise(session, inputs)
        for name, array in recorded.items():
            if array.size > 1 and np.all(array == array.flat[0]):
                notes.append(
                    f"{place.name}: all {array.size} elements of output {name!r} are the same, "
                    "so few faults in the weights would show"
                )
        sets.append(
            GoldenSet(
                name=place.name,
                kind="recorded",
                inputs=inputs,
                reference={name: array.astype(np.float64) for name, array in recorded.items()},
                noise=noise,
            )
        )
    how = "as the caller said" if tolerance else "estimated by moving the inputs"
    notes.append(f"the reference is what another runtime recorded; its noise floor is {how}")
    return sets, notes


def recorded_inputs(path: Path, folder: Path) -> list[tuple[str, Arrays]]:
    """The inputs in ONNX test data, under the model's names: (the set's name, the arrays).

    Raises:
        BundleError: the data are damaged, or are not those of this model.
    """
    names = [spec.name for spec in read_onnx_header(path).inputs]
    sets = []
    for place in data_folders(folder):
        tensors, _ = read_test_data_set(place)
        if len(tensors) != len(names):
            raise BundleError(
                f"{place} holds {len(tensors)} inputs, {path.name} has {len(names)}. "
                "Give the data of this model."
            )
        by_name = dict(tensors)
        in_order = dict(zip(names, (array for _, array in tensors), strict=True))
        sets.append((place.name, by_name if set(by_name) == set(names) else in_order))
    return sets


def data_folders(folder: Path) -> list[Path]:
    """The test-data folders inside a folder, in the order of their numbers; else itself.

    Raises:
        BundleError: it is not a folder.
    """
    if not folder.is_dir():
        raise BundleError(
            f"{folder} is not a folder. Give one that holds input_0.pb and output_0.pb."
        )
    inner = [place for place in folder.glob("test_data_set_*") if place.is_dir()]
    return sorted(inner, key=lambda place: (len(place.name), place.name)) or [folder]


def _named(session: Session, folder: Path) -> tuple[Arrays, Arrays]:
    """Inputs and outputs under the model's names; ONNX's files often leave the names out."""
    inputs, outputs = read_test_data_set(folder)
    named = []
    for role, tensors, names in (
        ("input", inputs, session.input_names),
        ("output", outputs, session.output_names),
    ):
        if len(tensors) != len(names):
            raise BundleError(
                f"{folder} holds {len(tensors)} {role}s, {session.path.name} has {len(names)}. "
                "Give the data of this model."
            )
        by_name = dict(tensors)
        in_order = dict(zip(names, (array for _, array in tensors), strict=True))
        named.append(by_name if set(by_name) == set(names) else in_order)
    return named[0], named[1]


def floor_of(tolerance: Tolerance, recorded: npt.NDArray[Any], limits: Limits) -> NoiseFloor:
    """The floor under which an error of exactly the tolerance is at both limits."""
    finite = np.abs(recorded[np.isfinite(recorded)].astype(np.float64))
    bound = tolerance.atol + tolerance.rtol * float(finite.max(initial=0.0))
    return NoiseFloor(bound / limits.rho2, bound / limits.rhomax)


def _estimated_noise(
    session: Session, inputs: Mapping[str, npt.NDArray[Any]]
) -> dict[str, NoiseFloor]:
    if not any(array.dtype.kind == "f" and array.size for array in inputs.values()):
        raise ArgumentError(
            f"{session.path.name} takes no float input, so its noise floor cannot be estimated "
            "from recorded data. Give a tolerance: `rtol` and `atol`."
        )
    outputs = session.run(inputs)
    worst = dict.fromkeys(outputs, (0.0, 0.0))
    for seed in MOVE_SEEDS:
        moved = session.run(moved_inputs(inputs, seed))
        for name, output in outputs.items():
            if not isinstance(output, np.ndarray) or output.dtype.kind != "f":
                continue
            both = np.isfinite(output) & np.isfinite(moved[name])
            error = moved[name][both].astype(np.float64) - output[both]
            rms, largest = worst[name]
            worst[name] = (
                max(rms, root_mean_square(error)),
                max(largest, float(np.abs(error).max(initial=0.0))),
            )
    return {name: NoiseFloor(*values) for name, values in worst.items()}


def moved_inputs(inputs: Mapping[str, npt.NDArray[Any]], seed: int) -> Arrays:
    """The inputs with every float element moved by ``_STEPS`` units in the last place."""
    rng = np.random.default_rng(seed)
    moved = {}
    for name, array in inputs.items():
        if array.dtype.kind == "f":
            # spacing keeps the sign of its argument, and is NaN where that is not finite.
            with np.errstate(invalid="ignore"):
                step = np.nan_to_num(np.spacing(array), nan=0.0)
            signs = rng.choice(np.array([-_STEPS, _STEPS], array.dtype), array.shape)
            array = array + signs * step
        moved[name] = array
    return moved
