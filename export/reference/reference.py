"""The only ground truth: PyTorch in float64, and how far PyTorch's own float32 is from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dlzoo.errors import ExportError
from dlzoo.export.reference.float32_ways import float32_runs, is_unsteady, more_float32_runs
from dlzoo.export.reference.float64_arithmetic import compute_in_float64
from dlzoo.runtime.bundle.golden_set import GoldenSet, NoiseFloor

Array = npt.NDArray[Any]


def compute_golden_set(
    name: str,
    kind: str,
    module: nn.Module,
    inputs: Mapping[str, Array],
    *,
    output_names: Sequence[str],
) -> GoldenSet:
    """Answers in float64, and the noise floor of PyTorch's float32 around them.

    float32 is run a few ways: as it comes, in channels_last memory with plain sums, and
    otherwise grouped: one sample at a time on one thread, and a single one as a batch of two
    copies. Where an output has few elements, or the network amplifies rounding errors, with sums in
    further orders, too, and all of them once more without oneDNN; where no output is a number the first alone, for then the
    places of NaN and Inf are what counts.

    Where float32 overflows on a finite sample and float64 does not, the reference takes float32's
    Inf or NaN: no float32 model can do better. On samples with NaN or Inf it stays float64's, for
    there PyTorch's float32 kernels can be wrong (GELU(+Inf) is NaN). The kind says either.

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
    wide = compute_in_float64(module, tensors, output_names)
    reference = {key: value.numpy().astype(np.float64) for key, value in wide.items()}
    # A saturating activation can turn Inf into numbers again, and those are compared as any.
    has_numbers = any(bool(np.isfinite(value).any()) for value in reference.values())
    runs = list(float32_runs(module, tensors, output_names, every_way=has_numbers))
    num_overflows = num_apart = 0
    for key, y in reference.items():
        t = runs[0][key]
        apart = ~_same_class(t, y)
        overflows = apart & _is_of_finite_sample(y, inputs)
        y[overflows] = t[overflows]
        num_overflows += int(overflows.sum())
        num_apart += int((apart & ~overflows).sum())
    num_values = sum(y.size for y in reference.values())
    for number, why in (
        (num_overflows, "float32 overflows"),
        (num_apart, "PyTorch's float32 and float64 differ"),
    ):
        if number:
            kind += f" ({why} in {number} of {num_values} outputs)"
    noise = {key: _noise_floor([run[key] for run in runs], y) for key, y in reference.items()}
    if has_numbers and any(is_unsteady(y, noise[key].rms) for key, y in reference.items()):
        runs += more_float32_runs(module, tensors, output_names)
        noise = {
            key: _noise_floor([run[key] for run in runs], y) for key, y in reference.items()
        }
    return GoldenSet(
        name=name, kind=kind, inputs=dict(inputs), reference=reference, noise=noise
    )


def _is_of_finite_sample(y: Array, inputs: Mapping[str, Array]) -> npt.NDArray[np.bool_]:
    """Where an output belongs to a sample without NaN or Inf; all or nothing without samples."""
    finite = [np.isfinite(value) for value in inputs.values()]
    if y.size and y.ndim and all(m.ndim and len(m) == len(y) for m in finite):
        is_finite = np.logical_and.reduce(
            [mask.reshape(len(y), -1).all(axis=1) for mask in finite]
        )
        return np.broadcast_to(is_finite.reshape(-1, *(1,) * (y.ndim - 1)), y.shape)
    return np.full(y.shape, all(bool(mask.all()) for mask in finite))


def _same_class(a: Array, b: Array) -> npt.NDArray[np.bool_]:
    """Where both are finite, or both NaN, or the same infinity."""
    both_nan = np.isnan(a) & np.isnan(b)
    same: npt.NDArray[np.bool_] = (np.isfinite(a) & np.isfinite(b)) | both_nan | (a == b)
    return same


def _noise_floor(runs: Sequence[Array], y: Array) -> NoiseFloor:
    rms = largest = 0.0
    for t in runs:
        finite = np.isfinite(t) & np.isfinite(y)
        if finite.any():
            error = np.abs(t[finite].astype(np.float64) - y[finite])
            largest = max(largest, float(error.max()))
            scale = float(error.max()) or 1.0  # squares of tiny errors would underflow
            rms = max(rms, scale * float(np.sqrt(np.mean(np.square(error / scale)))))
    return NoiseFloor(rms=rms, max=largest)
