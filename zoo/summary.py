"""What a network costs: parameters, multiply-adds and activation memory, layer by layer.

The forward pass runs on the meta device, where tensors have shapes and no data, so that VGG-19
costs as little as LeNet-5.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from dlzoo.errors import ArgumentError
from dlzoo.zoo.registry import Card

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """One call of a module that computes something itself, apart from its children."""

    #: As in ``named_modules()``; empty for the network itself.
    path: str
    type: str
    #: Of the first tensor that goes in and the first that comes out, with a batch of 1.
    input_shape: Shape | None
    output_shape: Shape | None
    #: Elements of the parameters that its operators read, each at its first use only.
    num_parameters: int
    num_multiply_adds: int
    #: Memory that its operators allocate for their results.
    activation_bytes: int


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """The layers of a network in the order they run, and what they add up to.

    **Multiply-adds** are those of convolutions and matrix products, attention's among them; one
    counts for two floating-point operations. Normalization, activation, pooling, addition and
    LeNet-5's distances are not counted, as in the papers.

    **Activation memory** is for one sample, in evaluation mode, as eager PyTorch computes it, without
    what a kernel needs for itself. Attention is computed step by step, its scores in memory; a fused
    kernel needs less.
    """

    layers: tuple[LayerSummary, ...]
    num_parameters: int
    num_trainable_parameters: int
    num_multiply_adds: int
    #: Memory that all operators together allocate for their results; nothing is given back.
    activation_bytes: int
    #: What autograd keeps from the forward pass for the backward pass, the input among it. In
    #: training mode dropout's masks and batch statistics come on top.
    training_activation_bytes: int
    #: The most that is alive at one time without gradients: the input, and each result until
    #: nothing refers to it.
    inference_peak_bytes: int

    @property
    def num_unused_parameters(self) -> int:
        """Parameters that the forward pass does not read, such as auxiliary heads'."""
        return self.num_parameters - sum(layer.num_parameters for layer in self.layers)


@dataclass
class _Call:
    """A module call in progress, and what its operators have added up to."""

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


class _OperatorAccount(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch types it so
    """Sees every operator, charges it to the innermost module that runs, and follows its results."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []
        self.peak_bytes = 0
        self._running: list[_Call] = []
        self._live_bytes = 0
        # Weights are no activations: their storages count as seen.
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in state.values())
        self._unread = {
            id(tensor): tensor.numel()
            for tensor in state.values()
            if isinstance(tensor, nn.Parameter)
        }

    def enter_module(self, path: str) -> Callable[..., None]:
        """A forward pre-hook for the module at that path."""

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            call = _Call(path, type(module).__name__, _first_shape((args, kwargs)))
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

        Returns its bytes, or 0 for a view and for what was written in place.
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
            # The registry counts the multiplication and the addition.
            call.num_multiply_adds += count(*args, **kwargs, out_val=result) // 2
        return result


@contextmanager
def _in_evaluation_mode(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _copy_state(module: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """Parameters and buffers on a device; a forward pass with them leaves the module's alone."""
    state: dict[str, Tensor] = {
        name: nn.Parameter(
            parameter.detach().to(device), requires_grad=parameter.requires_grad
        )
        for name, parameter in module.named_parameters()
    }
    for name, buffer in module.named_buffers():
        state[name] = buffer.detach().clone().to(device)
    return state


def _count_inference(
    module: nn.Module, state: dict[str, Tensor], x: Tensor
) -> tuple[list[_Call], int]:
    """The module calls of a forward pass, and the bytes that were alive at its fullest moment."""
    account = _OperatorAccount(state)
    account.follow(x)
    hooks = []
    for path, part in module.named_modules():
        hooks.append(
            part.register_forward_pre_hook(account.enter_module(path), with_kwargs=True)
        )
        hooks.append(part.register_forward_hook(account.leave_module))
    try:
        with torch.no_grad(), account:
            functional_call(module, state, (x,))
    finally:
        for hook in hooks:
            hook.remove()
    return account.calls, account.peak_bytes


def _count_kept_for_backward(module: nn.Module, state: dict[str, Tensor], x: Tensor) -> int:
    """The bytes that autograd keeps from a forward pass, weights apart."""
    weights = {tensor.untyped_storage() for tensor in state.values()}
    kept: set[torch.UntypedStorage] = set()

    def keep(tensor: Tensor) -> Tensor:
        kept.add(tensor.untyped_storage())
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        functional_call(module, state, (x,))
    return sum(storage.nbytes() for storage in kept - weights)


def summarize_model(module: nn.Module, input_shape: Shape) -> ModelSummary:
    """Count what a network costs for one sample.

    Shape:
        ``input_shape`` is one sample's, such as (3, 224, 224); the network gets a batch of 1 in
        its parameters' dtype. A network that cannot run without data runs for real, on zeros, on
        the device it is on. Either way it is left as it was: weights, buffers, hooks and mode.

    Units:
        Multiply-adds, elements and bytes, as :class:`ModelSummary` defines them.

    Raises:
        ArgumentError: the network does not take an input of that shape.

    Example:
        >>> summary = summarize_model(nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10))
        >>> summary.num_parameters, summary.num_multiply_adds  # 8 (3 9 + 1), 100 8 3 9
        (224, 21600)
        >>> summary.inference_peak_bytes  # 4 bytes for each of 3 100 + 8 100 elements
        4400
    """
    parameters = list(module.parameters())
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)
    home = parameters[0].device if parameters else torch.device("cpu")

    def run(device: torch.device) -> tuple[list[_Call], int, int]:
        state = _copy_state(module, device)
        calls, peak_bytes = _count_inference(
            module, state, torch.zeros(1, *input_shape, dtype=dtype, device=device)
        )
        x = torch.zeros(1, *input_shape, dtype=dtype, device=device)
        return calls, peak_bytes, _count_kept_for_backward(module, state, x)

    # Fused attention hides its matrix products from the count: take the steps one by one.
    has_fast_attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            _in_evaluation_mode(module),
            torch.inference_mode(False),
            sdpa_kernel(SDPBackend.MATH),
        ):
            try:
                calls, peak_bytes, training_bytes = run(torch.device("meta"))
            except (NotImplementedError, RuntimeError):
                # An operator without a shape rule, or control flow that looks at values.
                calls, peak_bytes, training_bytes = run(home)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ArgumentError(
            f"{type(module).__name__}: got an input of shape {tuple(input_shape)} for one sample, "
            f"which it does not take ({reason}); give the shape it was built for."
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(has_fast_attention)

    layers = tuple(
        LayerSummary(
            path=call.path,
            type=call.type,
            input_shape=call.input_shape,
            output_shape=call.output_shape,
            num_parameters=call.num_parameters,
            num_multiply_adds=call.num_multiply_adds,
            activation_bytes=call.activation_bytes,
        )
        for call in calls
    )
    return ModelSummary(
        layers=layers,
        num_parameters=sum(p.numel() for p in parameters),
        num_trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        num_multiply_adds=sum(layer.num_multiply_adds for layer in layers),
        activation_bytes=sum(layer.activation_bytes for layer in layers),
        training_activation_bytes=training_bytes,
        inference_peak_bytes=peak_bytes,
    )


def summarize_card(card: Card, **builder_arguments: Any) -> ModelSummary:
    """Count what a model of the zoo costs, without making its weights.

    Raises:
        ArgumentError: the model does not take images of the card's size.
    """
    with torch.device("meta"):
        module = card.builder(**builder_arguments)
    return summarize_model(module, card.input_shape)
