"""Running any network in float64 without changing it and without a second copy of its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from dlzoo.errors import ExportError
from dlzoo.zoo.float64 import conv2d_in_float64, linear_in_float64
from dlzoo.zoo.module_state import in_float64, state_restored
from dlzoo.zoo.sources.module_call import call_module

_NARROW = (torch.float32, torch.float16, torch.bfloat16)
#: What reads a property of a tensor and computes nothing.
_GETTER = "__get__"


def compute_in_float64(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]
) -> dict[str, Tensor]:
    """The network's outputs with every floating-point operation done in float64.

    Weights are widened (exactly) as each operation meets them. Where a network's code cannot be
    followed like that, they are widened all at once: the same answer for twice the memory.
    Integer inputs stay integer.

    Raises:
        ExportError: some of it computes in float32 whatever it is given.
    """
    wide = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
    try:
        return _compute(module, wide, output_names)
    except (_NotWidenedError, RuntimeError, TypeError):
        # Compiled code and tensors written in place are beyond the reach of widening.
        return _compute_widened(module, wide, output_names)


def _compute_widened(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]
) -> dict[str, Tensor]:
    try:
        with in_float64(module):
            return _compute(module, inputs, output_names)
    except _NotWidenedError as error:
        raise ExportError(
            f"{type(module).__name__} has no float64 reference: {error} Let the network take "
            "its dtype from its input."
        ) from None


def _compute(
    module: nn.Module, inputs: Mapping[str, Tensor], output_names: Sequence[str]
) -> dict[str, Tensor]:
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        watch = _NarrowWatch()  # type: ignore[no-untyped-call]
        with state_restored(module), torch.no_grad(), watch, _Widening():
            return call_module(module, inputs, output_names)
    finally:
        torch.set_default_dtype(default_dtype)


class _NotWidenedError(Exception):
    """An operation that was about to compute in less than float64."""


class _Widening(TorchFunctionMode):
    """While active, every narrow tensor counts as float64, and every narrow dtype means it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == _GETTER:
            result = func(*args, **kwargs)
            return (
                torch.float64
                if isinstance(result, torch.dtype) and result in _NARROW
                else result
            )
        if _writes_into_narrow(name, args, kwargs):
            raise _NotWidenedError(f"{name} writes into a float32 tensor.")
        if func in (Tensor.float, Tensor.half, Tensor.bfloat16):
            func = Tensor.double
        if func is F.linear:
            return linear_in_float64(*args, **kwargs)
        if func is F.conv2d or func is torch.conv2d:
            return conv2d_in_float64(*args, **kwargs)
        wide_args, wide_kwargs = _pytree.tree_map(_widened, (args, kwargs))
        return func(*wide_args, **wide_kwargs)


def _writes_into_narrow(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call changes a tensor that widening would replace by a copy."""
    target = kwargs.get("out")
    is_in_place = name.endswith("_") and not name.endswith("__")
    if (is_in_place or name in ("__setitem__", "__set__") or name.startswith("__i")) and args:
        target = args[0]
    return isinstance(target, Tensor) and target.dtype in _NARROW


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype in _NARROW else value
    if isinstance(value, torch.dtype):
        return torch.float64 if value in _NARROW else value
    return value


class _NarrowWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Stops at the first operation that computes in less than float64."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        is_narrow = any(
            isinstance(leaf, Tensor) and leaf.dtype in _NARROW
            for leaf in _pytree.tree_leaves(result)
        )
        # Views (rows of a weight about to be widened) and detached weights compute nothing.
        if is_narrow and not func.is_view and func is not torch.ops.aten.detach.default:
            raise _NotWidenedError(f"{func} computes in float32.")
        return result
