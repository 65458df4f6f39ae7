"""Find the first wrong value of a model, its node, and whether that is wrong on right inputs.

The first value in topological order that is beyond the limits, with nothing beyond the limits
before it, is the accused. Then its node is run alone on the reference's own values.

Source: docs/DESIGN.md, section 6, rule 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.errors import ArgumentError, BundleError, ProviderError
from dlzoo.runtime.bundle.golden_set import NoiseFloor
from dlzoo.runtime.diff.rewiring import rewirings
from dlzoo.runtime.diff.value_checks import (
    ReferenceValue,
    ValueCheck,
    ValueChecker,
    compare_value,
)
from dlzoo.runtime.onnx_reader.onnx_nodes import GraphNode
from dlzoo.runtime.proof.difference import Difference, failed_difference
from dlzoo.runtime.session.tapped_session import TappedModel

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """The nodes that the first wrong value comes from.

    ``kind`` is ``node`` (the node is wrong on right inputs), ``input`` (it is right on the inputs
    that the reference takes, but is wired to others: ``takes`` in place of ``expected``),
    ``missing`` (the same, and no node makes ``expected``), or ``sum`` (no node alone is beyond
    the limits; small errors add up to it).
    """

    check: ValueCheck
    kind: str
    nodes: tuple[GraphNode, ...]
    alone: Difference | None
    takes: str = ""
    expected: str = ""


@dataclass(kw_only=True)
class Localizer(ValueChecker):
    """Finds the first wrong value of one model with one choice of settings, on one set of inputs.

    ``twin`` makes the model anew, with the same names: where one value of the reference is
    several nodes of the model, it says which of them is wrong, provided that it is right itself.
    """

    twin: Callable[[], TappedModel | None] | None = None

    def find(self, checks: Sequence[ValueCheck]) -> tuple[Suspect, ...]:
        """The accused, the first one first; more than one where errors lie side by side."""
        failed = {check.value for check in checks if not check}
        found = []
        for check in checks:
            if check:
                continue
            nodes, taken = self.model.graph.segment(check.value, self._ends(check.value))
            if failed & set(taken):
                continue
            found.append(self._judge_alone(check, nodes, taken, checks))
        return tuple(found)

    def find_in_fusions(self) -> Suspect | None:
        """The accused of a model that is wrong only as it is fused: one value is tapped at a time.

        Taps on everything would undo the fusions. The first wrong value is found by bisection.
        """
        values = [name for name in self.model.values if name in self.pairs]
        right, wrong = -1, len(values) - 1
        found = self._check_one(values[wrong])
        if found:
            return None
        while right + 1 < wrong:
            middle = (right + wrong) // 2
            check = self._check_one(values[middle])
            if check:
                right = middle
            else:
                wrong, found = middle, check
        nodes, taken = self.model.graph.segment(found.value, self._ends(found.value))
        alone = None
        named = [self.pairs[name] for name in taken if name in self.pairs]
        if set(taken) <= set(self.pairs) | set(self.inputs):
            known = self.reference.values([*named, found.partner])
            given = self._inputs_of(taken, known)
            alone = self._run_alone(found, nodes, given, known[found.partner])
        return Suspect(check=found, kind="node", nodes=tuple(nodes), alone=alone)

    def _check_one(self, name: str) -> ValueCheck:
        wanted = self.reference.values([self.pairs[name]])[self.pairs[name]]
        got = self.model.run(self.inputs, [name], self.settings)[name]
        return self.check(name, compare_value(name, got, wanted, self.limits))

    def _ends(self, value: str) -> list[str]:
        return [name for name in self.pairs if name != value and name in self.model.values]

    def _judge_alone(
        self,
        check: ValueCheck,
        nodes: list[GraphNode],
        taken: list[str],
        checks: Sequence[ValueCheck],
    ) -> Suspect:
        """Run the accused nodes on the reference's values, then on those that it takes itself."""
        if not set(taken) <= set(self.pairs) | set(self.inputs):
            return Suspect(check=check, kind="node", nodes=tuple(nodes), alone=None)
        walk = self._walk(check.partner)
        named = [self.pairs[name] for name in taken if name in self.pairs]
        right = self.reference.values([*named, *walk, check.partner])
        given = self._inputs_of(taken, right)
        wanted = right[check.partner]
        alone = self._run_alone(check, nodes, given, wanted)
        if alone:
            return self._upstream(check, nodes, alone, checks)
        if len(nodes) > 1 and self.twin is not None:
            narrowed = self._narrow(check, nodes, given, wanted)
            if narrowed is not None:
                return narrowed
        for replaced, expected in rewirings(taken, walk, right, self.pairs):
            arrays = given | {
                name: self._given(name, right[other][0]) for name, other in replaced.items()
            }
            if self._run_alone(check, nodes, arrays, wanted):
                takes = next(iter(replaced))
                has_node = expected in set(self.pairs.values())
                return Suspect(
                    check=check,
                    kind="input" if has_node else "missing",
                    nodes=tuple(nodes),
                    alone=alone,
                    takes=takes,
                    expected=expected,
                )
        return Suspect(check=check, kind="node", nodes=tuple(nodes), alone=alone)

    def _narrow(
        self,
        check: ValueCheck,
        nodes: list[GraphNode],
        given: Mapping[str, Array],
        wanted: ReferenceValue,
    ) -> Suspect | None:
        """The one of several nodes that is wrong alone on the inputs that the twin has."""
        assert self.twin is not None
        twin = self.twin()
        if twin is None or check.value not in twin.graph.producers:
            return None
        right_nodes, taken = twin.graph.segment(check.value, given)
        if not set(taken) <= set(given):
            return None
        made = [name for node in right_nodes for name in node.outputs if name]
        inputs = {name: given[name] for name in taken}
        try:
            right = {**given, **twin.run_alone(right_nodes, inputs, made, self.settings)}
        except BundleError:
            return None
        if not compare_value(check.value, right[check.value], wanted, self.limits):
            return None  # what the exporter writes is wrong every time
        for node in nodes:
            taken = [name for name in node.inputs if name in right]
            known = [name for name in node.outputs if name in right]
            unknown = set(node.inputs) - set(right) - set(self.model.graph.initializers) - {""}
            if unknown or not known:
                continue
            alone = self._run_alone(
                replace(check, value=known[0]),
                [node],
                {name: right[name] for name in taken},
                (right[known[0]].astype(np.float64), NoiseFloor(rms=0.0, max=0.0)),
            )
            if alone:
                continue
            twins = twin.graph.producers[known[0]].inputs
            other = [n for n in twins if n in right and n not in node.inputs]
            kind = "node"
            if other and node.op_type == twin.graph.producers[known[0]].op_type:
                kind = "input" if other[0] in self.model.graph.producers else "missing"
            taken_wrongly = [name for name in taken if name not in twins]
            return Suspect(
                check=check,
                kind=kind,
                nodes=(node,),
                alone=alone,
                takes=taken_wrongly[0] if kind != "node" and taken_wrongly else "",
                expected=other[0] if kind != "node" else "",
            )
        return None

    def _walk(self, partner: str) -> list[str]:
        """The reference's values before this one, back to those that the model has, too."""
        paired = set(self.pairs.values())
        found: dict[str, None] = {}
        pending = list(self.reference.arguments(partner))
        while pending:
            name = pending.pop(0)
            if name not in found:
                found[name] = None
                if name not in paired:
                    pending += self.reference.arguments(name)
        return list(found)

    def _inputs_of(
        self, taken: Sequence[str], right: Mapping[str, ReferenceValue]
    ) -> dict[str, Array]:
        """The nodes' inputs, from the reference where it has them, else from the model's inputs."""
        return {
            name: self._given(name, right[self.pairs[name]][0])
            if name in self.pairs
            else self.inputs[name]
            for name in taken
        }

    def _given(self, name: str, array: Array) -> Array:
        return array.astype(self.model.values[name][0]) if name in self.model.values else array

    def _run_alone(
        self,
        check: ValueCheck,
        nodes: Sequence[GraphNode],
        given: Mapping[str, Array],
        wanted: ReferenceValue,
    ) -> Difference:
        try:
            got = self.model.run_alone(nodes, given, [check.value], self.settings)
        except (ArgumentError, BundleError, ProviderError) as error:
            return failed_difference(check.value, f"cannot be computed: {error}")
        return compare_value(check.value, got[check.value], wanted, self.limits)

    def _upstream(
        self,
        check: ValueCheck,
        nodes: list[GraphNode],
        alone: Difference,
        checks: Sequence[ValueCheck],
    ) -> Suspect:
        """The node before it that is worst on right inputs, by the noise of that node alone.

        An error below the noise that has gathered so far can grow beyond it later, where noise
        averages out and the error does not.
        """
        graph = self.model.graph
        before = {node.index for node in graph.segment(check.value, [])[0]} - {
            check.node.index
        }
        others = {c.value: c for c in checks if c.node.index in before}
        worst: Suspect | None = None
        for chunk in self.model.chunks(list(others), self.inputs, self.max_bytes):
            segments = {name: graph.segment(name, self._ends(name)) for name in chunk}
            taken_by_any = {name for _, taken in segments.values() for name in taken}
            right = self.reference.values(
                [self.pairs[name] for name in taken_by_any if name in self.pairs]
            )
            for name, (segment, taken) in segments.items():
                floats = [n for n in taken if n in self.pairs]
                if not set(taken) <= {*floats, *self.inputs}:
                    continue
                given = self._inputs_of(taken, right)
                wanted = self.reference.values_from(
                    others[name].partner, {self.pairs[n]: given[n] for n in floats}
                )
                if wanted is None:
                    continue
                found = self._run_alone(others[name], segment, given, wanted)
                if not found and (worst is None or _rho(found) > _rho(worst.alone)):
                    worst = Suspect(
                        check=others[name], kind="node", nodes=tuple(segment), alone=found
                    )
        return worst or Suspect(check=check, kind="sum", nodes=tuple(nodes), alone=alone)


def _rho(difference: Difference | None) -> float:
    return np.inf if difference is None or difference.rho2 is None else difference.rho2
