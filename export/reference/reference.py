"""The only ground truth: PyTorch in float64, and how exact float32 can be in the same network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dlzoo.errors import ExportError
from dlzoo.export.reference.float64_arithmetic import compute_in_float64
from dlzoo.export.reference.random_rounding import random_rounding
from dlzoo.runtime.bundle.golden_set import GoldenSet, NoiseFloor
from dlzoo.zoo.module_state import state_restored
from dlzoo.zoo.sources.module_call import call_module

Array = npt.NDArray[Any]
#: K, the runs whose roundings are moved. Over 13 families of timm the floors of three runs lie
#: within 15 % of each other.
NUM_MOVED_RUNS = 3


def compute_golden_set(
    name: str,
    kind: str,
    module: nn.Module,
    inputs: Mapping[str, Array],
    *,
    output_names: Sequence[str],
) -> GoldenSet:
    """Compute the answers in float64, and the noise floor of float32 around them.

    The network runs as its author calls it: the whole batch, once in float64, once plainly in
    float32, and three times in float32 with its roundings moved at random (random_rounding.py).

    Where float32 overflows on finite inputs and float64 does not, the reference takes float32's
    Inf or NaN: no float32 model can do better. The kind says so. Inputs with NaN or infinities are
    answered by the plain run alone: only the places of NaN and infinities are looked at there, and
    they decide nothing.

    Args:
        name: of the set, ``test_data_set_0``.
        kind: of the inputs.
        module: in eval mode; it is not changed.
        inputs: by name, in the order of the graph's inputs.
        output_names: one for each tensor that the network gives.

    Raises:
        ExportError: the network is in training mode, or has no float64 reference.
    """
    if any(child.training for child in module.modules()):
        raise ExportError(
            f"{type(module).__name__} is in training mode, in which its answers are random. "
            "Call eval() first."
        )
    tensors = {key: torch.from_numpy(value) for key, value in inputs.items()}
    plain = run_in_float32(module, tensors, output_names)
    if not all(bool(np.isfinite(value).all()) for value in inputs.values()):
        return GoldenSet(
            name=name,
            kind=kind,
            inputs=dict(inputs),
            reference={key: value.astype(np.float64) for key, value in plain.items()},
            noise={key: NoiseFloor(rms=0.0, max=0.0) for key in plain},
        )
    wide = compute_in_float64(module, tensors, output_names)
    reference = {key: value.numpy().astype(np.float64) for key, value in wide.items()}
    num_overflows = 0
    for key, y in reference.items():
        overflows = ~_same_class(plain[key], y)
        y[overflows] = plain[key][overflows]
        num_overflows += int(overflows.sum())
    if num_overflows:
        num_values = sum(y.size for y in reference.values())
        kind += f" (float32 overflows in {num_overflows} of {num_values} outputs)"
    moved = []
    for seed in range(NUM_MOVED_RUNS):
        with random_rounding(module, seed):
            moved.append(_run(module, tensors, output_names))
    return GoldenSet(
        name=name,
        kind=kind,
        inputs=dict(inputs),
        reference=reference,
        noise={
            key: noise_floor(y, plain[key], [run[key] for run in moved])
            for key, y in reference.items()
        },
    )


def run_in_float32(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]
) -> dict[str, Array]:
    """Run the network as it is, without gradients."""
    with torch.no_grad():
        return _run(module, inputs, output_names)


def _run(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]
) -> dict[str, Array]:
    with state_restored(module):
        outputs = call_module(module, inputs, output_names)
    # A network may hand out a tensor of its own, which a later run changes.
    return {key: as_array(value).copy() for key, value in outputs.items()}


def as_array(value: Tensor) -> Array:
    """A tensor as an array, in the same memory where NumPy has its dtype."""
    # NumPy has no bfloat16; float32 holds its values exactly.
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def noise_floor(y: Array, plain: Array, moved: Sequence[Array]) -> NoiseFloor:
    """The noise floor of one output.

    Args:
        y: the reference, in float64.
        plain: the plain float32 run.
        moved: float32 runs whose roundings were moved.
    """
    rms = largest = 0.0
    for m in moved:
        found, top = _error(m, y)
        rms, largest = max(rms, found), max(largest, top)
    changes = np.zeros(y.shape, np.bool_)
    for m in moved:
        changes |= m != plain
    changes &= np.isfinite(y)
    if not changes.any():  # nothing is rounded: all of it is signal
        changes = np.isfinite(y)
    signal = np.where(changes, y, 0.0)
    return NoiseFloor(
        rms=rms,
        max=largest,
        signal_rms=root_mean_square(signal),
        signal_max=float(np.abs(signal).max(initial=0.0)),
        plain_rms=_error(plain, y)[0],
    )


def _error(t: Array, y: Array) -> tuple[float, float]:
    finite = np.isfinite(t) & np.isfinite(y)
    error = t[finite].astype(np.float64) - y[finite]
    return root_mean_square(error), float(np.abs(error).max(initial=0.0))


def root_mean_square(values: Array) -> float:
    """sqrt(mean(x²)) of finite numbers, also where a square would underflow; 0 for no element."""
    largest = float(np.abs(values).max(initial=0.0))
    if not largest:
        return 0.0
    # Squares of tiny errors would underflow.
    return largest * float(np.sqrt(np.mean(np.square(values / largest))))


def _same_class(a: Array, b: Array) -> npt.NDArray[np.bool_]:
    """Where both are finite, or both NaN, or the same infinity."""
    both_nan = np.isnan(a) & np.isnan(b)
    same: npt.NDArray[np.bool_] = (np.isfinite(a) & np.isfinite(b)) | both_nan | (a == b)
    return same
