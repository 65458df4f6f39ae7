"""Compute the value of every traced operator in PyTorch: float64 and the noise floor of float32 around it.

The program that was traced for the exporter is run operator by operator, so that each value that
the exporter named after an operator has a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree

from dlzoo.export.diff.traced_network import TracedNetwork
from dlzoo.export.reference.float32_ways import one_thread, without_onednn
from dlzoo.export.reference.plain_sums import PlainSums
from dlzoo.runtime.bundle.golden_set import NoiseFloor
from dlzoo.zoo.float64 import conv2d_in_float64, linear_in_float64

Array = npt.NDArray[Any]
_NARROW = (torch.float32, torch.float16, torch.bfloat16)
_IMAGE_RANK = 4
#: Fewer elements than this give an unsteady RMS, as for golden data (reference.py).
_FEW_ELEMENTS = 100
_MOVE = 2


class TracedValues:
    """PyTorch's values of one network on one set of inputs, by traced name.

    Attributes:
        title: whose values these are, for a sentence.
    """

    title = "PyTorch"

    def __init__(self, network: TracedNetwork, inputs: Sequence[Array]) -> None:
        self.network = network
        self.inputs = list(inputs)

    def values(self, names: Sequence[str]) -> dict[str, tuple[Array, NoiseFloor]]:
        """Those of these values that the program has: (float64, noise of float32)."""
        found = reference_values(self.network, names, self.inputs)
        return {name: (array, noise) for name, array, noise in found}

    def values_from(
        self, name: str, given: Mapping[str, Array]
    ) -> tuple[Array, NoiseFloor] | None:
        """One value computed from others, with the noise that arises on the way from them."""
        found = reference_values(self.network, [name], self.inputs, given=given)
        return next(((array, noise) for _, array, noise in found), None)

    def arguments(self, name: str) -> tuple[str, ...]:
        """The values that the operator takes that makes this one."""
        value = self.network.values.get(name)
        return value.arguments if value else ()


def reference_values(
    network: TracedNetwork,
    names: Collection[str],
    inputs: Sequence[Array],
    *,
    given: Mapping[str, Array] | None = None,
) -> Iterator[tuple[str, npt.NDArray[np.float64], NoiseFloor]]:
    """Values in float64, each with the error of PyTorch's float32: (name, y64, noise).

    float32 runs beside float64 a few ways: as it comes, in channels_last memory with plain sums,
    without oneDNN, and the last sample alone on one thread; for values of few elements also on inputs
    that are moved by two units of their last place. What no later operator needs is let go.

    Args:
        network: what was traced.
        names: which values, of ``network.values``.
        inputs: the network's, in order.
        given: values that are taken from here, not computed.
    """
    wanted = {name for name in names if name in network.by_name}
    known = {network.by_name[name]: value for name, value in (given or {}).items()}
    ways = [_Way(None)]
    tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in inputs]
    ways += list(_float32_ways(network, tensors, has_given=bool(given)))
    needed = _needed(network, wanted, known)
    uses = {node: sum(user in needed for user in node.users) for node in needed}
    with torch.no_grad():
        for node in network.nodes:
            if node not in needed:
                continue
            for way in ways:
                way.step(node, _value_source(network, node, tensors, known, way))
            if node.name in wanted and isinstance(ways[0].env[node], Tensor):
                yield (node.name, *_judged(node, ways))
            if node in known or node.op == "placeholder":
                continue
            for argument in node.all_input_nodes:
                uses[argument] -= 1
                if not uses[argument]:
                    for way in ways:
                        way.env.pop(argument, None)


def _value_source(
    network: TracedNetwork,
    node: Node,
    tensors: Sequence[Tensor],
    known: Mapping[Node, Array],
    way: _Way,
) -> Any:
    """The value of a node that is not computed; None where it is computed."""
    if node in known:
        return way.prepared(torch.from_numpy(np.ascontiguousarray(known[node])))
    if node in network.stored:
        return network.stored[node]  # widened where it is used: no second copy of all weights
    if node in network.inputs:
        return way.prepared(tensors[network.inputs.index(node)])
    return None


def _needed(
    network: TracedNetwork, wanted: Collection[str], known: Mapping[Node, Array]
) -> set[Node]:
    needed: set[Node] = set()
    pending = [network.by_name[name] for name in wanted]
    while pending:
        node = pending.pop()
        if node not in needed:
            needed.add(node)
            if node not in known:
                pending += node.all_input_nodes
    return needed


class _Way:
    """One way of computing the program: float64 where ``layout`` is None, else float32."""

    def __init__(
        self,
        layout: Callable[[Tensor], Tensor] | None,
        context: Callable[[], Any] | None = None,
        *,
        is_last_sample: bool = False,
        is_moved: bool = False,
    ) -> None:
        self.layout = layout
        self.context = context
        self.is_last_sample = is_last_sample
        self.is_moved = is_moved
        self.may_fail = layout is _channels_last or is_last_sample
        self.env: dict[Node, Any] = {}
        self.failed = False

    def prepared(self, x: Tensor) -> Tensor:
        if self.layout is None:
            return x.double() if x.dtype in _NARROW else x
        return self.layout(x)

    def step(self, node: Node, value: Any) -> None:
        """Take a value as it is, or compute it."""
        if value is not None:
            self.env[node] = value
        elif self.layout is None:
            self.env[node] = _call_in_float64(node, self.env)
        elif not self.failed:
            with ExitStack() as stack:
                if self.context is not None:
                    stack.enter_context(self.context())
                try:
                    self.env[node] = _call(node, self.env)
                except RuntimeError:
                    # A batch that is written into the network's code, or a view of memory that
                    # lies otherwise than when it was traced: the other ways must do.
                    if not self.may_fail:
                        raise
                    self.failed = True


def _float32_ways(
    network: TracedNetwork, tensors: Sequence[Tensor], *, has_given: bool
) -> Iterator[_Way]:
    yield _Way(lambda x: x)
    yield _Way(lambda x: x, without_onednn)
    yield _Way(_moved, is_moved=True)
    yield _Way(_channels_last, PlainSums)
    lengths = {len(x) for x in tensors if x.dim()}
    example = [node.meta["val"] for node in network.inputs]
    is_open = all(
        isinstance(x, Tensor) and x.dim() and not isinstance(x.shape[0], int) for x in example
    )
    if len(lengths) == 1 and is_open and not has_given:
        yield _Way(lambda x: x[-1:], one_thread, is_last_sample=True)


def _moved(x: Tensor) -> Tensor:
    """Every element of a float input two units of its last place up or down, at random."""
    if x.dtype not in _NARROW:
        return x
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, x.shape, generator=generator) * 2.0 - 1.0
    return torch.where(
        torch.isfinite(x), x * (1 + _MOVE * torch.finfo(x.dtype).eps * signs), x
    ).to(x.dtype)


def _channels_last(x: Tensor) -> Tensor:
    if x.dim() != _IMAGE_RANK:
        return x
    return x.contiguous(memory_format=torch.channels_last)


def _arguments(node: Node, env: Mapping[Node, Any], change: Callable[[Any], Any]) -> Any:
    def look_up(value: Any) -> Any:
        return env[value] if isinstance(value, Node) else value

    found = torch.fx.node.map_aggregate((node.args, dict(node.kwargs)), look_up)
    return _pytree.tree_map(change, found)


def _call(node: Node, env: Mapping[Node, Any]) -> Any:
    args, kwargs = _arguments(node, env, lambda value: value)
    assert callable(node.target), f"{node} is {node.op}"
    return node.target(*args, **kwargs)


def _call_in_float64(node: Node, env: Mapping[Node, Any]) -> Any:
    args, kwargs = _arguments(node, env, _widened)
    assert callable(node.target), f"{node} is {node.op}"
    if node.target is torch.ops.aten.conv2d.default:
        return conv2d_in_float64(*args, **kwargs)
    if node.target is torch.ops.aten.linear.default:
        return linear_in_float64(*args, **kwargs)
    return node.target(*args, **kwargs)


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype in _NARROW else value
    if isinstance(value, torch.dtype):
        return torch.float64 if value in _NARROW else value
    return value


def _judged(node: Node, ways: Sequence[_Way]) -> tuple[npt.NDArray[np.float64], NoiseFloor]:
    y = ways[0].env[node].detach().numpy().astype(np.float64)
    rms = largest = 0.0
    for way in ways[1:]:
        if way.failed or (way.is_moved and y.size >= _FEW_ELEMENTS):
            continue
        t = way.env[node].detach()
        t = (t.float() if t.dtype == torch.bfloat16 else t).numpy()
        expected = y
        if way.is_last_sample:
            expected = y[-1:] if y.ndim else y
        if t.shape != expected.shape:
            continue  # samples that do not lie along the first axis
        finite = np.isfinite(t) & np.isfinite(expected)
        if finite.any():
            error = np.abs(t[finite].astype(np.float64) - expected[finite])
            top = float(error.max())
            largest = max(largest, top)
            if top:  # squares of tiny errors would underflow
                rms = max(rms, top * float(np.sqrt(np.mean(np.square(error / top)))))
    return y, NoiseFloor(rms=rms, max=largest)
