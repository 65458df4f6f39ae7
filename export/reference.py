"""The only ground truth: PyTorch in float64, and how far PyTorch's own float32 is from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dlzoo.errors import ExportError
from dlzoo.export.bundle import GoldenSet, NoiseFloor
from dlzoo.export.float64_arithmetic import compute_in_float64
from dlzoo.export.module_call import call_module

Array = npt.NDArray[Any]
_IMAGE_RANK = 4
#: Fewer elements than this give an unsteady RMS: of 200 clean runs of LeNet-5 with 10 outputs one
#: had rho2 3.4 against three ways of computing it. PyTorch's own kernels add two more ways.
_FEW_ELEMENTS = 100


def compute_golden_set(
    name: str,
    kind: str,
    module: nn.Module,
    inputs: Mapping[str, Array],
    *,
    output_names: Sequence[str],
) -> GoldenSet:
    """Answers in float64, and the noise floor of PyTorch's float32 around them.

    float32 is run three ways: as it comes, in channels_last memory, and otherwise grouped: several
    samples one at a time on one thread, a single one as a batch of two copies (where an output has few elements, the first and the last once more without
    oneDNN); where no output is a number the first alone, for then the places of NaN and Inf are
    what counts.

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
    runs = list(_float32_runs(module, tensors, output_names, every_way=has_numbers))
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
    return GoldenSet(
        name=name, kind=kind, inputs=dict(inputs), reference=reference, noise=noise
    )


def run_in_float32(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]
) -> dict[str, Array]:
    """The network's outputs as it comes, without gradients."""
    with torch.no_grad():
        outputs = call_module(module, inputs, output_names)
    return {key: _as_array(value) for key, value in outputs.items()}


def _float32_runs(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    output_names: Sequence[str],
    *,
    every_way: bool,
) -> Iterator[dict[str, Array]]:
    """t_k: the same numbers in other orders of summation."""
    first = run_in_float32(module, inputs, output_names)
    yield first
    if not every_way:
        return
    if any(x.dim() == _IMAGE_RANK for x in inputs.values()):
        channels_last = {
            key: x.contiguous(memory_format=torch.channels_last)
            if x.dim() == _IMAGE_RANK
            else x
            for key, x in inputs.items()
        }
        yield run_in_float32(module, channels_last, output_names)
    regrouped = _run_twice_over(module, inputs, output_names)
    if regrouped is None or any(regrouped[k].shape != first[k].shape for k in first):
        regrouped = _run_by_sample(module, inputs, output_names)
    if regrouped is not None and all(regrouped[k].shape == first[k].shape for k in first):
        yield regrouped
    if min(value.size for value in first.values()) < _FEW_ELEMENTS:
        with _without_onednn():
            yield run_in_float32(module, inputs, output_names)
            if regrouped is not None:
                again = _run_by_sample(module, inputs, output_names)
                if again is not None:
                    yield again


def _run_twice_over(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]
) -> dict[str, Array] | None:
    """A single sample as a batch of two copies; None for more samples, or where it cannot be.

    PyTorch blocks its sums otherwise for one sample than for several, and one thread alone sums
    as two do: torchvision's regnet_y_800mf has an error of 1.0e-5 on one sample, on one thread or
    two, of 4.1e-5 on the same sample twice, and ONNX Runtime's is 3.8e-5.
    """
    if any(x.dim() == 0 or len(x) != 1 for x in inputs.values()):
        return None
    twice = {key: torch.cat([x, x]) for key, x in inputs.items()}
    try:
        outputs = run_in_float32(module, twice, output_names)
    except (RuntimeError, ValueError, AssertionError):
        return None  # a batch that is written into the network's code, or guarded by it
    return {key: value[:1] if value.ndim else value for key, value in outputs.items()}


def _run_by_sample(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]
) -> dict[str, Array] | None:
    """One sample at a time on one thread; None where the network takes its one batch only.

    Where a sample has many output elements, the last one alone: the others are NaN here.
    """
    lengths = {len(x) if x.dim() else 0 for x in inputs.values()}
    if len(lengths) != 1 or 0 in lengths:
        return None
    num_samples = lengths.pop()
    parts: list[dict[str, Array]] = []
    with _one_thread():
        for i in reversed(range(num_samples)):
            if parts and all(value.size >= _FEW_ELEMENTS for value in parts[0].values()):
                # One sample says enough, and a thread alone is slow. NaN: not computed.
                parts.append({k: np.full_like(v, np.nan) for k, v in parts[0].items()})
                continue
            sample = {key: x[i : i + 1] for key, x in inputs.items()}
            try:
                parts.append(run_in_float32(module, sample, output_names))
            except (RuntimeError, ValueError, AssertionError):
                return (
                    None  # a batch that is written into the network's code, or guarded by it
                )
    if any(value.ndim == 0 for value in parts[0].values()):
        return None
    return {key: np.concatenate([part[key] for part in parts[::-1]]) for key in parts[0]}


@contextmanager
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Use PyTorch's own kernels."""
    # Not mkldnn.flags(): that sets TF32 too, which warns on most CPUs.
    backend = torch.backends.mkldnn
    was_enabled = backend.enabled
    backend.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        backend.enabled = was_enabled


def _as_array(value: Tensor) -> Array:
    # NumPy has no bfloat16; float32 holds its values exactly.
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


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
