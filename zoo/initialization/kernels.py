"""The kernels of a network, with the number of inputs and outputs that each connects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from dlzoo.zoo.layers.connection_table import TableConvolution
from dlzoo.zoo.layers.pool import TrainableSubsampling


@dataclass(frozen=True)
class Kernel:
    """A weight, or a part of it that is one linear map: a group, a query's projection."""

    #: Name of the whole weight, such as ``features.0.weight``.
    parameter: str
    #: Number of this part of the weight.
    part: int
    #: A view into the weight: [outputs, inputs, ...], or a vector of one coefficient per output.
    values: Tensor
    #: Number of inputs summed in one output.
    fan_in: int
    #: Number of outputs that one input contributes to, ignoring edges and strides.
    fan_out: int


def find_kernels(module: nn.Module) -> list[Kernel]:
    """All kernels of a network: convolutions, linear layers, attention's packed projections.

    A convolution of g groups has g kernels, each with ``I / g`` inputs and ``O / g`` outputs
    (times the positions in the window).
    """
    found: dict[int, list[Kernel]] = {}
    for owner_name, owner in module.named_modules():
        for weight_name, weight, parts in _weights(owner):
            name = f"{owner_name}.{weight_name}".lstrip(".")
            kernels = [Kernel(name, i, *part) for i, part in enumerate(parts)]
            # A shared weight counts once.
            found.setdefault(id(weight), kernels)
    return [kernel for kernels in found.values() for kernel in kernels]


def find_biases(module: nn.Module) -> dict[str, nn.Parameter]:
    """The biases of the same layers, by name."""
    biases = {}
    for owner_name, owner in module.named_modules():
        for name in _bias_names(owner):
            bias = getattr(owner, name, None)
            if isinstance(bias, nn.Parameter):
                biases[f"{owner_name}.{name}".lstrip(".")] = bias
    return biases


_Part = tuple[Tensor, int, int]


def _weights(owner: nn.Module) -> Iterator[tuple[str, Tensor, list[_Part]]]:
    if isinstance(owner, nn.Linear):
        yield "weight", owner.weight, [_matrix(owner.weight)]
    elif isinstance(owner, _ConvNd):
        yield "weight", owner.weight, _groups(owner)
    elif isinstance(owner, TableConvolution):
        yield "weight", owner.weight, _rows_of_table(owner)
    elif isinstance(owner, TrainableSubsampling):
        # The coefficient of a channel multiplies every position in its window.
        part = (owner.coefficient.detach(), owner.kernel_size**2, 1)
        yield "coefficient", owner.coefficient, [part]
    elif isinstance(owner, nn.MultiheadAttention):
        if owner.in_proj_weight is not None:
            thirds = owner.in_proj_weight.detach().chunk(3)
            yield "in_proj_weight", owner.in_proj_weight, [_matrix(third) for third in thirds]
        else:
            for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
                weight = owner.get_parameter(name)
                yield name, weight, [_matrix(weight)]


def _bias_names(owner: nn.Module) -> tuple[str, ...]:
    if isinstance(owner, nn.MultiheadAttention):
        return ("in_proj_bias",)
    layers = (nn.Linear, _ConvNd, TableConvolution, TrainableSubsampling)
    return ("bias",) if isinstance(owner, layers) else ()


def _matrix(weight_OI: Tensor) -> _Part:
    return weight_OI.detach(), weight_OI.shape[1], weight_OI.shape[0]


def _groups(conv: _ConvNd) -> list[_Part]:
    parts = []
    for group in conv.weight.detach().chunk(conv.groups):
        if isinstance(conv, _ConvTransposeNd):
            group = group.transpose(0, 1)
        num_places = group[0, 0].numel()
        parts.append((group, group.shape[1] * num_places, group.shape[0] * num_places))
    return parts


def _rows_of_table(conv: TableConvolution) -> list[_Part]:
    num_places = conv.weight[0].numel()
    # Inputs contribute to different numbers of outputs: use the mean.
    fan_out = round(conv.weight.numel() / conv.in_channels)
    parts, first = [], 0
    for fan_in in conv.fan_in:
        last = first + fan_in // num_places
        parts.append((conv.weight.detach()[None, first:last], fan_in, fan_out))
        first = last
    return parts
