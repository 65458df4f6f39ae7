"""Costs of the operators in a forward pass, charged to the modules that call them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Shape = tuple[int, ...]


@dataclass
class ModuleCall:
    """A module call in progress, and the total costs of its operators so far."""

    path: str
    type: str
    input_shape: Shape | None
    output_shape: Shape | None = None
    num_operators: int = 0
    num_parameters: int = 0
    num_multiply_adds: int = 0
    activation_bytes: int = 0


def _first_shape(value: Any) -> Shape | None:
    return next((tuple(x.shape) for x in tree_leaves(value) if isinstance(x, Tensor)), None)


class OperatorAccount(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch types it so
    """Charges every operator to the innermost running module, and tracks the operators' results."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[ModuleCall] = []
        self.peak_bytes = 0
        self._running: list[ModuleCall] = []
        self._live_bytes = 0
        # Weights are not activations: their storages count as seen.
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in state.values())
        self._unread = {
            id(tensor): tensor.numel()
            for tensor in state.values()
            if isinstance(tensor, nn.Parameter)
        }

    def enter_module(self, path: str) -> Callable[..., None]:
        """A forward pre-hook for the module at that path."""

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            call = ModuleCall(path, type(module).__name__, _first_shape((args, kwargs)))
            self._running.append(call)

        return enter

    def leave_module(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A forward hook for any module."""
        call = self._running.pop()
        call.output_shape = _first_shape(output)
        if call.num_operators:
            self.calls.append(call)

    def follow(self, tensor: Tensor) -> int:
        """Count a tensor as alive until its memory is freed.

        Returns its bytes, or 0 for views and for results written in place.
        """
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return 0
        self._seen.add(storage)
        size_bytes = storage.nbytes()
        self._live_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)
        weakref.finalize(storage, self._release, size_bytes)
        return size_bytes

    def _release(self, size_bytes: int) -> None:
        self._live_bytes -= size_bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        call = self._running[-1]
        call.num_operators += 1
        for leaf in tree_leaves((args, kwargs)):
            call.num_parameters += self._unread.pop(id(leaf), 0)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                call.activation_bytes += self.follow(leaf)
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            # The registry counts multiplications and additions separately.
            call.num_multiply_adds += count(*args, **kwargs, out_val=result) // 2
        return result
