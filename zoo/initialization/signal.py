"""Random weights with which the input affects the output through every layer.

An untrained network can hide any fault: GoogLeNet, with its authors' published initialization,
gives outputs that differ between two images by only 3e-12 relative. Here every layer is scaled
by its effect on data, so that its input still matters at the output.

Shape legend: N batch, C channels, H and W height and width; * any further axes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from dlzoo.zoo.float64 import Float64Arithmetic
from dlzoo.zoo.initialization.draws import PortableBits
from dlzoo.zoo.layers.connection_table import TableConvolution
from dlzoo.zoo.layers.pool import TrainableSubsampling
from dlzoo.zoo.module_state import attributes_restored

FloatArray = npt.NDArray[np.float64]

#: Layers that compute ``weight x + bias``, and the names of their weights.
AFFINE_LAYERS: dict[type[nn.Module], str] = {
    _ConvNd: "weight",
    nn.Linear: "weight",
    TableConvolution: "weight",
    TrainableSubsampling: "coefficient",
}

#: Statistics keep this many bits. The last digits of a float64 sum depend on the order of its
#: terms, and so on threads and processor; rounded away, they do not affect the weights.
NUM_BITS = 10
#: Number of images measured at once: enough for 8192 pixels, at least 2.
MIN_SAMPLES, MAX_SAMPLES, PIXELS = 2, 16, 8192
#: Equal values are spread with this standard deviation …
SPREAD = 0.3
#: … and biases have this mean: normalized data shifted by it passes through ReLU mostly
#: unclipped. Around 0 a perturbation grows 1.21-fold with every normalization and ReLU, and after
#: the 150 of ResNet-152 float32's own error (1e-3 then, 1e-5 now) would hide a fault.
SHIFT = 0.75
#: A constant parameter below this damps its branch (ConvNeXt's layer scale starts at 1e-6) …
DAMPED_BELOW = 0.05
#: … and is raised to this.
LIFTED_TO = 0.5
#: A channel with less than this share of the mean variance is treated as if it had that share.
MIN_VARIANCE_SHARE = 0.01
#: In a layer with a bias, the mean response to all images is subtracted, and the rest is scaled to 1,
#: unless it is less than this share of the whole: after a mean over a large image (a gate of
#: EfficientNet) images differ by little, and scaling would amplify float32's error. Of 40 small
#: faults in efficientnet_b1_pruned 34 were caught without this limit, 40 with it.
MIN_STD_SHARE = 0.25
#: Queries and keys get variance 2, so attention logits q·k/√d have standard deviation 2: the
#: softmax attends to a few tokens instead of averaging them all.
QUERY_KEY_STD = 2.0**0.5


def scale_to_unit_variance(
    module: nn.Module, input_shape: tuple[int, ...], seed: int = 0
) -> None:
    """Change untrained weights, in place, so that every layer affects the output.

    One pass of N(0, 1) images in float64. At each layer, after all layers before it:


    - convolution, linear: ``W <- W / s`` and ``b <- b - mean_c(W x) / s``, with s such that
      outputs have variance 1 (without a bias: mean square 1) and ``mean_c`` over a channel; less
      than 1 if outputs hardly differ between images;
    - batch normalization: running mean and variance become those of its input;
    - attention with a packed ``in_proj_weight``: queries, keys and values are scaled separately.

    Before that, tensors that are constant (a zero bias, a norm's ones and zeros, a branch
    switched off by a zero or 1e-6) get values that all differ, so that dropping or swapping one
    has an effect. Parameters without gradient and buffers other than running statistics stay.

    Equal weights and seeds give equal bytes in any process, with any number of threads and on any
    machine: statistics are summed in float64 and rounded to 10 bits.

    **Source** Mishkin and Matas 2016, "All you need is a good init" (layer-sequential unit
    variance); Salimans and Kingma 2016, "Weight normalization", section 3 (biases from data).

    Args:
        module: a network on the CPU; it keeps its training mode.
        input_shape: (channels, height, width) of one sample.
        seed: draws the images and the values that replace constants.
    """
    was_training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            for owner_name, owner in module.named_modules():
                _make_constants_differ(owner, owner_name, seed)
            with (
                attributes_restored(module),
                _scaling_hooks(module),
                Float64Arithmetic(),
            ):
                module(_images(input_shape, seed))
    finally:
        for part, mode in was_training.items():
            part.training = mode


def _images(input_shape: tuple[int, ...], seed: int) -> Tensor:
    """N(0, 1) noise as a sum, because cosine and logarithm differ between processors."""
    num_pixels = input_shape[-1] * input_shape[-2]
    num_samples = min(MAX_SAMPLES, max(MIN_SAMPLES, PIXELS // num_pixels))
    shape = (num_samples, *input_shape)
    bits = _bits(seed, "images")
    # Irwin-Hall: the sum of four uniform draws is nearly normal.
    return torch.stack([bits.uniform(shape, std=0.5) for _ in range(4)]).double().sum(dim=0)


def _bits(seed: int, name: str) -> PortableBits:
    """One stream per tensor, so that no tensor's values depend on another's."""
    return PortableBits(seed, zlib.crc32(name.encode()))


# -- constants get values that differ -----------------------------------------------------------


def _make_constants_differ(owner: nn.Module, owner_name: str, seed: int) -> None:
    for name, parameter in owner.named_parameters(recurse=False):
        if not parameter.requires_grad or not _is_constant(parameter):
            continue
        constant = parameter.reshape(-1)[0].item()
        noise = _bits(seed, f"{owner_name}.{name}").uniform(parameter.shape)
        if "bias" in name:
            parameter.copy_(max(constant, SHIFT) + noise * SPREAD)
        elif name == "in_proj_weight" or name == _affine_weight_name(owner):
            # Any scale works, because the layer is scaled when it runs.
            parameter.copy_(noise)
        elif name == "weight" and abs(constant) < DAMPED_BELOW:
            # The last norm of a residual branch, switched off at the start of training.
            parameter.copy_(1.0 + noise * SPREAD)
        elif constant == 0.0:
            parameter.copy_(noise)
        elif abs(constant) < DAMPED_BELOW:
            parameter.copy_(LIFTED_TO * (1.0 + noise * SPREAD))
        else:
            parameter.mul_(1.0 + noise * SPREAD)


def _is_constant(parameter: Tensor) -> bool:
    values = parameter.reshape(-1)
    # Nearly every tensor can be told by its first values.
    return values.numel() > 0 and all(
        bool((part == values[0]).all()) for part in (values[:64], values)
    )


def _affine_weight_name(part: nn.Module) -> str | None:
    names = (name for kind, name in AFFINE_LAYERS.items() if isinstance(part, kind))
    return next(names, None)


# -- each layer is scaled by its effect ---------------------------------------------------------


@contextmanager
def _scaling_hooks(module: nn.Module) -> Iterator[None]:
    handles = []
    done: set[nn.Module] = set()
    has_batch_norm = any(isinstance(part, _BatchNorm) for part in module.modules())

    def once(part: nn.Module) -> bool:
        is_first = part not in done
        done.add(part)
        return is_first

    def after_affine(part: nn.Module, args: Any, y: Tensor) -> Tensor:
        if not once(part):
            return y
        name = _affine_weight_name(part)
        assert name is not None
        weight = part.get_parameter(name)
        bias = part.get_parameter("bias") if part.bias is not None else None
        if isinstance(part, _ConvNd) and bias is None and not has_batch_norm:
            _remove_response_to_mean(part, args[0])
            y = part.forward(args[0])
        return _scale_affine(y, weight, bias, -1 if isinstance(part, nn.Linear) else 1)

    def before_batch_norm(part: nn.Module, args: tuple[Tensor, ...]) -> None:
        if once(part):
            _set_running_statistics(part, args[0])  # type: ignore[arg-type]

    def before_attention(part: nn.Module, args: tuple[Tensor, ...]) -> None:
        if once(part):
            _scale_projections(part, args[0])

    def after_attention(part: nn.Module, args: Any, output: Any) -> Any:
        # nn.MultiheadAttention uses the weights of its last layer without calling it.
        last = getattr(part, "out_proj", None)
        if not isinstance(last, nn.Linear) or not once(last):
            return output
        y, *others = output if isinstance(output, tuple) else (output,)
        y = _scale_affine(y, last.weight, last.bias, -1)
        return (y, *others) if isinstance(output, tuple) else y

    for part in module.modules():
        if _affine_weight_name(part) is not None:
            handles.append(part.register_forward_hook(after_affine))
        elif isinstance(part, _BatchNorm) and part.track_running_stats:
            handles.append(part.register_forward_pre_hook(before_batch_norm))
        elif isinstance(getattr(part, "in_proj_weight", None), Tensor):
            handles.append(part.register_forward_pre_hook(before_attention))
            handles.append(part.register_forward_hook(after_attention))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _scale_affine(
    y: Tensor, weight: Tensor, bias: Tensor | None, channel_axis: int, std: float = 1.0
) -> Tensor:
    """Scale a layer by its output ``y`` and return its output afterwards."""
    mean_C, std_C = _channel_statistics(y, channel_axis)
    product_mean_C = mean_C if bias is None else mean_C - bias.double().numpy()
    total = np.mean(std_C**2 + product_mean_C**2)
    mean_square = total if bias is None else max(np.mean(std_C**2), total * MIN_STD_SHARE**2)
    scale = float(rounded(std / np.sqrt(mean_square))) if mean_square > 0 else 1.0
    weight.mul_(scale)
    if bias is None:
        return y * scale
    old_C = bias.double()
    mean_of_product_C = torch.from_numpy(_rounded_mean(mean_C, std_C)) - old_C
    bias.copy_((old_C - mean_of_product_C * scale).float())
    shape = [1] * y.ndim
    shape[channel_axis] = -1
    return (y - old_C.view(shape)) * scale + bias.double().view(shape)


def _remove_response_to_mean(conv: _ConvNd, x: Tensor) -> None:
    """``w_oi <- w_oi - (w_o · m) m_i / (m · m)``, m the mean of each input channel.

    Without batch normalization or a bias, nothing else removes what all images have in common;
    through 50 group normalizations it would drown their differences.
    """
    mean_I, _ = _channel_statistics(x, 1)
    mean_GI = torch.from_numpy(rounded(mean_I)).view(conv.groups, -1)
    square_G = mean_GI.square().sum(dim=1)
    for weight_OIK, mean_C, square in zip(
        conv.weight.flatten(2).chunk(conv.groups), mean_GI, square_G, strict=True
    ):
        if square > 0:
            response_O = torch.einsum("oik,i->o", weight_OIK.double(), mean_C)
            share_O = rounded((response_O / square / weight_OIK.shape[2]).numpy())
            weight_OIK -= torch.outer(torch.from_numpy(share_O), mean_C)[:, :, None].float()


def _scale_projections(attention: nn.Module, x: Tensor) -> None:
    """Scale the rows of a packed projection that give queries, keys and values."""
    weight: Tensor = attention.in_proj_weight  # type: ignore[assignment]
    bias: Tensor | None = attention.in_proj_bias  # type: ignore[assignment]
    biases = [None] * 3 if bias is None else bias.chunk(3)
    for rows, part, std in zip(
        weight.chunk(3), biases, (QUERY_KEY_STD, QUERY_KEY_STD, 1.0), strict=True
    ):
        _scale_affine(nn.functional.linear(x, rows, part), rows, part, -1, std)


def _set_running_statistics(norm: _BatchNorm, x: Tensor) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    mean_C, std_C = _channel_statistics(x, 1)
    variance_C = std_C**2
    least = float(np.mean(variance_C)) * MIN_VARIANCE_SHARE
    variance_C = np.maximum(variance_C, least) if least > 0 else np.ones_like(variance_C)
    norm.running_mean.copy_(torch.from_numpy(_rounded_mean(mean_C, std_C)).float())
    norm.running_var.copy_(torch.from_numpy(rounded(variance_C)).float())


def _channel_statistics(x: Tensor, channel_axis: int) -> tuple[FloatArray, FloatArray]:
    other_axes = [axis for axis in range(x.ndim) if axis != channel_axis % x.ndim]
    variance_C, mean_C = torch.var_mean(x.double(), dim=other_axes, correction=0)
    return mean_C.numpy(), variance_C.sqrt().numpy()


def rounded(values: FloatArray) -> FloatArray:
    """The nearest numbers with ``NUM_BITS`` significant bits."""
    mantissa, exponent = np.frexp(values)
    nearest: FloatArray = np.ldexp(np.rint(np.ldexp(mantissa, NUM_BITS)), exponent - NUM_BITS)
    return nearest


def _rounded_mean(mean_C: FloatArray, std_C: FloatArray) -> FloatArray:
    """The mean, in steps of about 2^-10 of the standard deviation."""
    # A mean far from zero, or the sums' error in a dead channel, needs larger steps.
    rms = np.sqrt(np.mean(mean_C**2 + std_C**2))
    size_C = np.maximum(std_C, np.maximum(np.abs(mean_C), rms) * 2.0**-NUM_BITS)
    _, exponent_C = np.frexp(size_C)
    num_steps_C = np.rint(np.ldexp(mean_C, NUM_BITS - exponent_C))
    rounded_C: FloatArray = np.ldexp(num_steps_C, exponent_C - NUM_BITS)
    return rounded_C
