"""Costs of a network: parameters, multiply-adds and activation memory, layer by layer.

The forward pass runs on the meta device, where tensors have shapes but no data, so VGG-19
takes as little time and memory as LeNet-5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map_only

from dlzoo.errors import ArgumentError
from dlzoo.zoo.module_state import state_restored
from dlzoo.zoo.operator_account import ModuleCall, OperatorAccount, Shape
from dlzoo.zoo.registry import Card

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """One call of a module that computes something on its own, without its children."""

    #: Name as in ``named_modules()``; empty for the network itself.
    path: str
    type: str
    #: Shapes of the first input tensor and the first output tensor, with a batch of 1.
    input_shape: Shape | None
    output_shape: Shape | None
    #: Elements of the parameters that its operators read, each counted at its first use only.
    num_parameters: int
    num_multiply_adds: int
    #: Memory that its operators allocate for their results.
    activation_bytes: int


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """The layers of a network in the order they run, and their totals.

    **Multiply-adds** are those of convolutions and matrix products, including attention's; one
    counts as two floating-point operations. Normalization, activation, pooling, addition and
    LeNet-5's distances are not counted, as in the papers.

    **Activation memory** is for one sample in evaluation mode, as computed by eager PyTorch, without
    the workspace of kernels. Attention is computed step by step, with its scores in memory; a fused
    kernel needs less.
    """

    layers: tuple[LayerSummary, ...]
    num_parameters: int
    num_trainable_parameters: int
    num_multiply_adds: int
    #: Memory that all operators together allocate for their results, if none is freed.
    activation_bytes: int
    #: Memory that autograd keeps from the forward pass for the backward pass, including the input. In
    #: training mode dropout's masks and batch statistics are added.
    training_activation_bytes: int
    #: Largest memory in use at one time without gradients: the input, and each result until
    #: nothing refers to it.
    inference_peak_bytes: int

    @property
    def num_unused_parameters(self) -> int:
        """Parameters that the forward pass does not read, such as those of auxiliary heads."""
        return self.num_parameters - sum(layer.num_parameters for layer in self.layers)


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
    """Copies of parameters and buffers on a device, so that a forward pass does not change these.

    Each place in a module has one name, however many paths lead to it, because
    ``functional_call`` restores wrongly what it swaps twice. Tied weights are one copy.
    """
    copies: dict[int, Tensor] = {}
    state: dict[str, Tensor] = {}
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
            if id(parameter) not in copies:
                copies[id(parameter)] = nn.Parameter(
                    parameter.detach().to(device), requires_grad=parameter.requires_grad
                )
            state[prefix + name] = copies[id(parameter)]
        for name, buffer in part.named_buffers(recurse=False, remove_duplicate=False):
            if id(buffer) not in copies:
                copies[id(buffer)] = buffer.detach().clone().to(device)
            state[prefix + name] = copies[id(buffer)]
    return state


def _count_inference(
    module: nn.Module, state: dict[str, Tensor], arguments: Arguments
) -> tuple[list[ModuleCall], int]:
    """The module calls of a forward pass, and the largest number of bytes alive at one time."""
    account = OperatorAccount(state)
    for leaf in tree_leaves(arguments):
        if isinstance(leaf, Tensor):
            account.follow(leaf)
    hooks = []
    for path, part in module.named_modules():
        hooks.append(
            part.register_forward_pre_hook(account.enter_module(path), with_kwargs=True)
        )
        hooks.append(part.register_forward_hook(account.leave_module))
    try:
        with torch.no_grad(), account:
            functional_call(module, state, *arguments, tie_weights=False)
    finally:
        for hook in hooks:
            hook.remove()
    return account.calls, account.peak_bytes


def _count_kept_for_backward(
    module: nn.Module, state: dict[str, Tensor], arguments: Arguments
) -> int:
    """The bytes that autograd keeps from a forward pass, without the weights."""
    weights = {tensor.untyped_storage() for tensor in state.values()}
    kept: set[torch.UntypedStorage] = set()

    def keep(tensor: Tensor) -> Tensor:
        kept.add(tensor.untyped_storage())
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        functional_call(module, state, *arguments, tie_weights=False)
    return sum(storage.nbytes() for storage in kept - weights)


def summarize_model(module: nn.Module, input_shape: Shape) -> ModelSummary:
    """Count what a network costs for one sample.

    Shape:
        ``input_shape`` is that of one sample, such as (3, 224, 224); the network gets a batch of 1
        in its parameters' dtype. A network that cannot run without data runs on zeros, on the
        device it is on. In either case its weights, buffers, hooks and mode are unchanged.

    Units:
        Multiply-adds, elements and bytes, as :class:`ModelSummary` defines them.

    Raises:
        ArgumentError: the network does not accept an input of that shape.

    Example:
        >>> summary = summarize_model(nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10))
        >>> summary.num_parameters, summary.num_multiply_adds  # 8 (3 9 + 1), 100 8 3 9
        (224, 21600)
        >>> summary.inference_peak_bytes  # 4 bytes for each of 3 100 + 8 100 elements
        4400
    """
    dtype = next(
        (p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32
    )
    try:
        return summarize_call(module, (torch.zeros(1, *input_shape, dtype=dtype),))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ArgumentError(
            f"{type(module).__name__}: got an input of shape {tuple(input_shape)} for one sample, "
            f"which it does not accept ({reason}); pass the shape it was built for."
        ) from error


def summarize_call(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> ModelSummary:
    """Count what one call of a network with any arguments costs; see :func:`summarize_model`.

    Raises:
        RuntimeError: raised by the network for these arguments.
    """
    parameters = list(module.parameters())
    home = parameters[0].device if parameters else torch.device("cpu")

    def run(device: torch.device) -> tuple[list[ModuleCall], int, int]:
        state = _copy_state(module, device)

        def arguments() -> Arguments:
            # New ones each time: what the first pass holds must not count in the second.
            moved: Arguments = tree_map_only(
                Tensor, lambda x: x.clone().to(device), (args, dict(kwargs or {}))
            )
            return moved

        with state_restored(module):
            calls, peak_bytes = _count_inference(module, state, arguments())
        with state_restored(module):
            training_bytes = _count_kept_for_backward(module, state, arguments())
        return calls, peak_bytes, training_bytes

    # Fused attention hides its matrix products from the count: run it step by step.
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
                # An operator without a shape rule, or control flow that depends on values.
                calls, peak_bytes, training_bytes = run(home)
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
    """Count what a model of the zoo costs, without creating its weights.

    Raises:
        ArgumentError: the model does not accept images of the card's size.
    """
    with torch.device("meta"):
        module = card.builder(**builder_arguments)
    return summarize_model(module, card.input_shape)
