"""How a network is called by input name, and its answers by output name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree

from dlzoo.errors import ExportError

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def bind_inputs(
    module: nn.Module, inputs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments for ``module(*args, **kwargs)``.

    Where every input is named like a parameter of ``forward`` they are passed by name, in the
    order of the signature; else by position, in the order given. What ``torch.export`` traced is
    called as it was then, and in no other way.
    """
    traced_call = getattr(module, "_in_spec", None)
    if isinstance(traced_call, _pytree.TreeSpec):
        args, kwargs = _pytree.tree_unflatten(list(inputs.values()), traced_call)
        return tuple(args), dict(kwargs)
    parameters = inspect.signature(module.forward).parameters
    named = [name for name, p in parameters.items() if p.kind in _NAMED and name in inputs]
    if len(named) == len(inputs):
        return (), {name: inputs[name] for name in named}
    return tuple(inputs.values()), {}


def call_module(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]
) -> dict[str, Tensor]:
    """Run a network and name its tensors, in the order in which ``torch.onnx`` flattens them.

    Raises:
        ExportError: it gives another number of tensors than there are names.
    """
    args, kwargs = bind_inputs(module, inputs)
    leaves = _pytree.tree_leaves(module(*args, **kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if len(tensors) != len(output_names):
        raise ExportError(
            f"{type(module).__name__} gives {len(tensors)} tensors, but {len(output_names)} "
            f"outputs are named ({', '.join(output_names)}). Name each of them once."
        )
    return dict(zip(output_names, tensors, strict=True))
