"""PyTorch in float32, computed a few ways: how far its own answers lie from each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dlzoo.export.reference.plain_sums import PlainSums
from dlzoo.zoo.sources.module_call import call_module

Array = npt.NDArray[Any]
_IMAGE_RANK = 4
#: Fewer elements than this give an unsteady RMS.
_FEW_ELEMENTS = 100
#: A network that makes more than this many roundings (2^-24) of one gives an unsteady error, too:
#: regnet_y_8gf makes 440 on one image, VGG-16 258.
_AMPLIFIED_ROUNDINGS = 320
_NUM_DRAWN_ORDERS = 3


def run_in_float32(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]
) -> dict[str, Array]:
    """The network's outputs as it comes, without gradients."""
    with torch.no_grad():
        outputs = call_module(module, inputs, output_names)
    return {key: _as_array(value) for key, value in outputs.items()}


def float32_runs(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    output_names: Sequence[str],
    *,
    every_way: bool,
) -> Iterator[dict[str, Array]]:
    """t_k: the same numbers in other orders of summation.

    Args:
        module: in eval mode.
        inputs: by name.
        output_names: one for each tensor that the network gives.
        every_way: else as it comes, alone.
    """
    first = run_in_float32(module, inputs, output_names)
    yield first
    if not every_way:
        return
    with PlainSums():
        yield run_in_float32(module, _channels_last(inputs), output_names)
    yield from _regrouped(module, inputs, output_names, first)


def is_unsteady(output: Array, rms_error: float) -> bool:
    """Whether a few ways of computing an output say too little of how exact float32 is.

    Of 200 clean runs of LeNet-5 with 10 outputs one had rho2 3.4 against three ways. And where a
    network amplifies rounding errors, each way draws another one: torchvision's regnet_y_8gf has
    1.4e-5 to 6.7e-5 on one image (ONNX Runtime 9.2e-5), and a clean network failed at rho2 3.3.
    """
    finite = output[np.isfinite(output)].astype(np.float64)
    if not finite.size:
        return False
    scale = float(np.abs(finite).max())
    rms = scale * float(np.sqrt(np.mean(np.square(finite / scale)))) if scale else 0.0
    return output.size < _FEW_ELEMENTS or rms_error > _AMPLIFIED_ROUNDINGS * 2**-24 * rms


def more_float32_runs(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]
) -> Iterator[dict[str, Array]]:
    """Further t_k: in more orders, and by PyTorch's own kernels in place of oneDNN's."""
    for order in range(1, 1 + _NUM_DRAWN_ORDERS):
        with PlainSums(order):
            yield run_in_float32(module, inputs, output_names)
    with without_onednn():
        first = run_in_float32(module, inputs, output_names)
        yield first
        with PlainSums():
            yield run_in_float32(module, _channels_last(inputs), output_names)
        yield from _regrouped(module, inputs, output_names, first)


def _channels_last(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Images as NHWC in memory; everything else as it is."""
    return {
        key: x.contiguous(memory_format=torch.channels_last) if x.dim() == _IMAGE_RANK else x
        for key, x in inputs.items()
    }


def _regrouped(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    output_names: Sequence[str],
    first: Mapping[str, Array],
) -> Iterator[dict[str, Array]]:
    """The samples in other groups, as far as the network can and its outputs have samples."""
    for run in (_run_twice_over, _run_by_sample):
        outputs = run(module, inputs, output_names)
        if outputs is not None and all(outputs[k].shape == first[k].shape for k in first):
            yield outputs


def _run_twice_over(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]
) -> dict[str, Array] | None:
    """A single sample as a batch of two copies; None for more samples, or where it cannot be.

    PyTorch blocks its sums otherwise for one sample than for several: torchvision's regnet_y_800mf
    has an error of 1.0e-5 on one sample, on one thread or two, of 4.1e-5 on the same sample twice,
    and ONNX Runtime's is 3.8e-5. (One thread alone matters elsewhere: MobileNetV2 on a photo.)
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
    with one_thread():
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
def one_thread() -> Iterator[None]:
    """Compute on one thread of torch."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@contextmanager
def without_onednn() -> Iterator[None]:
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
