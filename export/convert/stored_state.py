"""Tracing a network whose forward writes where torch.export does not follow.

torch.export follows writes into inputs, buffers and parameters. It refuses those into a tensor that
is a plain attribute: such tensors are copied at the start of the traced forward, so that the graph
computes from the stored values, as every run does. What is written through ``.data`` ends the process
(torch 2.13): it is written as through ``detach()``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dlzoo.zoo.module_state import tensor_places

_GET_DATA = Tensor.data.__get__  # type: ignore[attr-defined]
_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]
_REFUSED = "is mutated in the forward method"


class DataAsDetached(TorchFunctionMode):
    """While active, ``x.data`` is ``x.detach()``, and assigning to it copies into ``x``.

    Where no gradients are taken that is the same, and torch.export follows it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function."""
        if func == _GET_DATA:
            return args[0].detach()
        if func == _SET_DATA:
            target, values = args
            if target.shape == values.shape and target.dtype == values.dtype:
                target.detach().copy_(values)
                return None
        return func(*args, **(kwargs or {}))


def attributes_written(module: nn.Module, error: BaseException) -> set[str]:
    """The tensors that are plain attributes, if a trace failed because one is written into."""
    if _REFUSED not in str(error):
        return set()
    return {place.name for place in tensor_places(module) if place.kind == "attribute"}


def attribute_values(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The tensors that are plain attributes, each with a copy of its values."""
    places = [place for place in tensor_places(module) if place.kind == "attribute"]
    tensors = {id(tensor): tensor for tensor in (place.get() for place in places)}
    return [
        (tensor, tensor.detach().clone())
        for tensor in tensors.values()
        if tensor.device.type != "meta"
    ]


def restore_attributes(stored: list[tuple[Tensor, Tensor]]) -> None:
    """Put back the values that :func:`attribute_values` copied."""
    for tensor, values in stored:
        tensor.detach().copy_(values)


@contextmanager
def forward_on_copies(module: nn.Module, names: set[str]) -> Iterator[None]:
    """While active, a network's forward starts by copying the tensors of these names."""
    if not names:
        yield
        return
    original = module.forward

    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        before = {place: place.get() for place in tensor_places(module) if place.name in names}
        copies = {id(t): t.clone() for t in before.values()}
        try:
            for place, tensor in before.items():
                place.put(copies[id(tensor)])
            return original(*args, **kwargs)
        finally:
            for place, tensor in before.items():
                place.put(tensor)

    replaced = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if replaced is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = replaced
