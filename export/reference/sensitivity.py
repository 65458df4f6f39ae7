"""How small a relative change of each weight tensor shows in a network's outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dlzoo.zoo.module_state import state_restored
from dlzoo.zoo.sources.module_call import call_module

#: Random vectors over the outputs. The effects of tensors lie orders of magnitude apart and from
#: the limit, and the estimate from four is within a factor of 1.5.
_NUM_VECTORS = 4
#: A tensor all of whose elements are smaller than this is as good as zero, and has no relative
#: change: what its elements would do as constants of 1 counts. Weight decay leaves such tensors:
#: MobileNetV2's published weights have 34, at most 1.5e-6 where all others reach 1.5e-3.
NEARLY_ZERO = 2.0**-14


def weight_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Floating-point parameters and buffers by state-dict name, each tensor once."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path, child in module.named_modules():
        own = [*child.named_parameters(recurse=False), *child.named_buffers(recurse=False)]
        for name, tensor in own:
            if tensor.is_floating_point() and tensor.numel() and id(tensor) not in seen:
                seen.add(id(tensor))
                tensors[f"{path}.{name}" if path else name] = tensor
    return tensors


def measure_effects(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    output_names: Sequence[str],
    seed: int,
) -> dict[str, dict[str, float]]:
    """Estimate the effect of every weight tensor on every output, by random vectors.

    The effect of a tensor on an output is the root mean square of the output's change, to first
    order, where every element of the tensor changes by itself times ±1 at random.

    With v a vector of ±1 at random over an output's elements and g = ∂(v·y)/∂θ for a tensor θ of
    elements j, the mean over the vectors of Σ_j (g_j θ_j)² is the squared norm of y's change for
    a relative change of 1 with random signs. One forward and a few backward passes give all
    tensors at once. Running statistics of a batch normalization have no derivative in PyTorch;
    theirs follow from those of its weight w and bias b, with s the square root of the variance:
    ∂mean = -w/s · ∂b and ∂variance = -w/(2s²) · ∂w.

    Args:
        module: in eval mode; it comes back as it was.
        inputs: finite, by name.
        output_names: one for each tensor that the network gives.
        seed: draws the vectors.

    Returns:
        Output -> tensor -> effect. A tensor to which an output has no derivative is left out; NaN
        where derivatives could not be computed.
    """
    tensors = weight_tensors(module)
    try:
        return _measure(module, tensors, inputs, output_names, seed, with_buffers=True)
    except (RuntimeError, NotImplementedError):
        # A buffer that forward writes into, or hands to an operator that takes it as a constant.
        buffers = {id(b) for b in module.buffers()}
        own = {name: t for name, t in tensors.items() if id(t) not in buffers}
    try:
        found = _measure(module, own, inputs, output_names, seed, with_buffers=False)
    except (RuntimeError, NotImplementedError):
        found = {name: {} for name in output_names}
    unknown = dict.fromkeys(tensors, math.nan)
    return {name: {**unknown, **effects} for name, effects in found.items()}


def _measure(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    output_names: Sequence[str],
    seed: int,
    *,
    with_buffers: bool,
) -> dict[str, dict[str, float]]:
    generator = torch.Generator().manual_seed(seed)
    of_output: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        stack.enter_context(state_restored(module))
        statistics = stack.enter_context(_affine_statistics(module)) if with_buffers else []
        skipped = {id(t) for norm in statistics for t in (norm.mean, norm.variance)}
        leaves = {name: t for name, t in tensors.items() if t.is_leaf and id(t) not in skipped}
        affine = [t for norm in statistics for t in (norm.weight, norm.bias)]
        wanted = list({id(t): t for t in (*leaves.values(), *affine)}.values())
        stack.enter_context(_requiring_grad(wanted))
        stack.enter_context(torch.enable_grad())
        outputs = call_module(module, inputs, output_names)
        differentiable = {
            name: y for name, y in outputs.items() if y.requires_grad and y.numel()
        }
        num_vectors = max(2, -(-_NUM_VECTORS // max(1, len(differentiable))))
        account = stack.enter_context(_Account(tensors, leaves, statistics))
        for output, y in differentiable.items():
            account.sums.clear()
            finite = torch.isfinite(y.detach())
            for _ in range(num_vectors):
                v = torch.randint(0, 2, y.shape, generator=generator).mul_(2).sub_(1).to(y)
                y.backward(v * finite, retain_graph=True)  # type: ignore[no-untyped-call]
                account.add_statistics()
            of_output[output] = {
                name: math.sqrt(total / num_vectors / y.numel())
                for name, total in account.sums.items()
            }
        for output, y in outputs.items():
            if output not in of_output and y.is_floating_point():
                of_output[output] = {}
    return of_output


class _Account:
    """Adds up the squared changes of the tensors as their gradients come, and keeps no gradient.

    All gradients at once would take as much memory as the weights.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        leaves: Mapping[str, Tensor],
        statistics: Sequence[_Affine],
    ) -> None:
        self.sums: dict[str, float] = {}
        self._names = {id(t): name for name, t in tensors.items()}
        self._statistics = statistics
        affine = {id(t): t for norm in statistics for t in (norm.weight, norm.bias)}
        self._kept: dict[int, Tensor] = {}
        self._is_affine = set(affine)
        watched = {**affine, **{id(t): t for t in leaves.values()}}
        self._hooks = [
            t.register_post_accumulate_grad_hook(self._take)  # type: ignore[no-untyped-call]
            for t in watched.values()
        ]

    def _take(self, t: Tensor) -> None:
        gradient, t.grad = t.grad, None
        assert gradient is not None
        self._add(t, gradient)
        if id(t) in self._is_affine:
            self._kept[id(t)] = gradient

    def _add(self, t: Tensor, gradient: Tensor) -> None:
        name = self._names.get(id(t))
        if name is not None:
            change = _squared_change(gradient, t.detach())
            self.sums[name] = self.sums.get(name, 0.0) + change

    def add_statistics(self) -> None:
        """Add what follows for running statistics from the affine parameters' gradients."""
        for norm in self._statistics:
            for t, gradient in norm.gradients(self._kept):
                self._add(t, gradient)
        self._kept.clear()

    def __enter__(self) -> _Account:
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _squared_change(gradient: Tensor, values: Tensor) -> float:
    is_nearly_zero = bool(values.abs().amax() < NEARLY_ZERO)
    product = gradient if is_nearly_zero else gradient * values
    norm = float(torch.linalg.vector_norm(product))
    if norm == 0.0 or not math.isfinite(norm):  # squares beyond float32's range
        norm = float(torch.linalg.vector_norm(product.double()))
    return norm**2


@dataclass(frozen=True)
class _Affine:
    """The affine parameters of a normalization with running statistics."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor
    epsilon: float

    def gradients(self, by_id: Mapping[int, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Derivatives with respect to the running statistics, from the affine parameters'."""
        variance = self.variance + self.epsilon
        if id(self.bias) in by_id:
            yield self.mean, -self.weight.detach() / variance.sqrt() * by_id[id(self.bias)]
        if id(self.weight) in by_id:
            by_weight = by_id[id(self.weight)]
            yield self.variance, -self.weight.detach() / (2 * variance) * by_weight


@contextmanager
def _affine_statistics(module: nn.Module) -> Iterator[list[_Affine]]:
    """Each normalization that uses running statistics; one without affine parameters gets 1 and 0."""
    found: list[_Affine] = []
    lent: list[nn.Module] = []
    try:
        for part in module.modules():
            if not isinstance(part, _NormBase) or part.running_mean is None:
                continue
            assert part.running_var is not None
            if part.weight is None and part.bias is None:
                part.weight = nn.Parameter(torch.ones_like(part.running_var))
                part.bias = nn.Parameter(torch.zeros_like(part.running_mean))
                lent.append(part)
            found.append(
                _Affine(part.weight, part.bias, part.running_mean, part.running_var, part.eps)
            )
        yield found
    finally:
        for part in lent:
            part.weight = part.bias = None  # type: ignore[assignment]


@contextmanager
def _requiring_grad(tensors: Sequence[Tensor]) -> Iterator[None]:
    before = [(t.requires_grad, t.grad) for t in tensors]
    try:
        for t in tensors:
            t.requires_grad_(True)
            t.grad = None
        yield
    finally:
        for t, (was_required, gradient) in zip(tensors, before, strict=True):
            t.requires_grad_(was_required)
            t.grad = gradient
