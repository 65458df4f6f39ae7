"""Groups of parameters by weight decay and learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypedDict

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedParameter

from dlzoo.errors import ArgumentError

#: Normalization layers, whose scale and shift are not weights of a sum.
NORM_LAYERS: tuple[type[nn.Module], ...] = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class ParameterGroup(TypedDict):
    """Arguments of one group of an optimizer."""

    params: list[nn.Parameter]
    #: Factor of the learning rate.
    lr_scale: float
    #: Whether these are weights, and not norms' scales, biases and other vectors.
    is_weights: bool


def parameter_groups(
    module: nn.Module, lr_scales: Mapping[str, float] | None = None
) -> list[ParameterGroup]:
    """The parameters to train, grouped by learning-rate factor and by kind.

    Each parameter is in one group, even if modules share it; frozen ones are in none.

    Args:
        module: the network.
        lr_scales: factors of the learning rate by parameter name; 1 for others
            (:func:`~dlzoo.zoo.train.optimize.transfer.layer_lr_scales`).

    Raises:
        ArgumentError: nothing is left to train.
    """
    groups: dict[tuple[float, bool], ParameterGroup] = {}
    weights = {id(weight) for _, weight in named_weights(module)}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        lr_scale = (lr_scales or {}).get(name, 1.0)
        is_weights = id(parameter) in weights
        group = groups.setdefault(
            (lr_scale, is_weights),
            ParameterGroup(params=[], lr_scale=lr_scale, is_weights=is_weights),
        )
        group["params"].append(parameter)
    if not groups:
        raise ArgumentError(
            f"{type(module).__name__}: got no parameters to train, expected at least one; "
            "freeze fewer stages."
        )
    return list(groups.values())


def named_weights(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters that weight decay and penalties apply to.

    These exclude norms' scales and shifts, biases, and other vectors (ConvNeXt's layer scale, a
    class token).

    Source:
        He et al. 2019, "Bag of tricks for image classification", section 3.1 (no bias decay).
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for owner in module.modules():
        for own_name, parameter in owner.named_parameters(recurse=False):
            is_weight = not isinstance(owner, NORM_LAYERS) and _is_weight(own_name, parameter)
            if is_weight and id(parameter) in names:
                # A shared parameter is yielded once.
                yield names.pop(id(parameter)), parameter


def _is_weight(name: str, parameter: nn.Parameter) -> bool:
    if isinstance(parameter, UninitializedParameter):
        raise ArgumentError(
            f"Parameter {name}: got no values yet, expected numbers; run the network once on a batch "
            "first, from which its lazy layers derive their sizes."
        )
    if "bias" in name or parameter.dim() < 2:
        return False
    # A vector may have further axes of length 1; a layer with one input still has weights.
    return name.endswith("weight") or _num_long_axes(parameter.shape) > 1


def _num_long_axes(shape: Iterable[int]) -> int:
    return sum(length > 1 for length in shape)
