"""Compute the value of every traced operator in PyTorch: float64 and the noise floor of float32 around it.

The program that was traced for the exporter is run operator by operator, so that each value that
the exporter named after an operator has a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree

from dlzoo.export.diff.traced_network import TracedNetwork
from dlzoo.export.reference.random_rounding import RandomRounding, unfused
from dlzoo.export.reference.reference import NUM_MOVED_RUNS, as_array, noise_floor
from dlzoo.runtime.bundle.golden_set import NoiseFloor
from dlzoo.zoo.float64 import conv2d_in_float64, linear_in_float64

Array = npt.NDArray[Any]
_NARROW = (torch.float32, torch.float16, torch.bfloat16)


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
    """Compute values in float64, each with its noise floor: (name, y64, noise).

    Beside float64 the program runs plainly in float32 and a few times with its roundings moved at
    random, as for golden data. A value that no later operator needs is let go.

    Args:
        network: what was traced.
        names: which values, of ``network.values``.
        inputs: the network's, in order.
        given: values that are taken from here, not computed.
    """
    wanted = {name for name in names if name in network.by_name}
    known = {network.by_name[name]: value for name, value in (given or {}).items()}
    tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in inputs]
    wide, plain = _Run(_call_in_float64, _widened), _Run(_call, _unchanged)
    moved = [_MovedRun(seed) for seed in range(NUM_MOVED_RUNS)]
    for node in _computed(network, wanted, tensors, known, [wide, plain, *moved]):
        if isinstance(wide.env[node], Tensor):
            y = as_array(wide.env[node]).astype(np.float64, copy=False)
            others = [as_array(run.env[node]) for run in moved]
            yield node.name, y, noise_floor(y, as_array(plain.env[node]), others)


def plain_values(
    network: TracedNetwork, names: Collection[str], inputs: Sequence[Array]
) -> Iterator[tuple[str, Array]]:
    """Compute values plainly in float32, where the inputs may hold NaN and infinities.

    Args:
        network: what was traced.
        names: which values, of ``network.values``.
        inputs: the network's, in order.
    """
    wanted = {name for name in names if name in network.by_name}
    tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in inputs]
    plain = _Run(_call, _unchanged)
    for node in _computed(network, wanted, tensors, {}, [plain]):
        if isinstance(plain.env[node], Tensor):
            yield node.name, as_array(plain.env[node])


def _computed(
    network: TracedNetwork,
    wanted: Collection[str],
    tensors: Sequence[Tensor],
    known: Mapping[Node, Array],
    runs: Sequence[_Run],
) -> Iterator[Node]:
    """Go through the program in all runs, stopping at each wanted value while they hold it."""
    needed = _needed(network, wanted, known)
    uses = {node: sum(user in needed for user in node.users) for node in needed}
    with torch.no_grad():
        for node in network.nodes:
            if node not in needed:
                continue
            for run in runs:
                value = _value_source(network, node, tensors, known, run)
                run.env[node] = run.call(node, run.env) if value is None else value
            if node.name in wanted:
                yield node
            if node in known or node.op == "placeholder":
                continue
            for argument in node.all_input_nodes:
                uses[argument] -= 1
                if not uses[argument]:
                    for run in runs:
                        run.env.pop(argument, None)


def _value_source(
    network: TracedNetwork,
    node: Node,
    tensors: Sequence[Tensor],
    known: Mapping[Node, Array],
    run: _Run,
) -> Any:
    """The value of a node that is not computed; None where it is computed."""
    if node in known:
        return run.prepared(torch.from_numpy(np.ascontiguousarray(known[node])))
    if node in network.stored:
        return network.stored[node]  # widened where it is used: no second copy of all weights
    if node in network.inputs:
        return run.prepared(tensors[network.inputs.index(node)])
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


class _Run:
    """One run of the program: how an operator is called, and the values so far."""

    def __init__(
        self,
        call: Callable[[Node, Mapping[Node, Any]], Any],
        prepared: Callable[[Tensor], Tensor],
    ) -> None:
        self.call = call
        self.prepared = prepared
        self.env: dict[Node, Any] = {}


class _MovedRun(_Run):
    """A run in float32 whose roundings are moved at random."""

    def __init__(self, seed: int) -> None:
        super().__init__(self._call_moved, _unchanged)
        self._rounding = RandomRounding(seed)

    def _call_moved(self, node: Node, env: Mapping[Node, Any]) -> Any:
        with unfused(is_recurrent="lstm" in node.name or "gru" in node.name), self._rounding:
            return _call(node, env)


def _unchanged(x: Tensor) -> Tensor:
    return x


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
