"""Compare every value of a model with its reference, chunk by chunk of memory.

A reference gives the value that each node should have made: PyTorch, or another model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from dlzoo.errors import BundleError
from dlzoo.runtime.bundle.golden_set import NoiseFloor
from dlzoo.runtime.onnx_reader.onnx_nodes import GraphNode
from dlzoo.runtime.proof.compare import UNIT_ROUNDOFFS
from dlzoo.runtime.proof.difference import (
    Difference,
    exact_difference,
    failed_difference,
    float_difference,
    structure_problem,
)
from dlzoo.runtime.proof.limits import Limits
from dlzoo.runtime.proof.progress import SILENT, Progress
from dlzoo.runtime.session.run_settings import AS_WRITTEN, RunSettings
from dlzoo.runtime.session.tapped_session import MAX_TAPPED_BYTES, TappedModel

Array = npt.NDArray[Any]

#: What a value should be, and how far float32 arithmetic may be from it.
ReferenceValue = tuple[Array, NoiseFloor]


class ReferenceValues(Protocol):
    """The right values on one set of inputs; the names are the reference's own."""

    @property
    def title(self) -> str:
        """The reference's name, for a sentence."""

    def values(self, names: Sequence[str]) -> Mapping[str, ReferenceValue]:
        """The values of the whole network on its inputs; what it does not have is left out."""

    def values_from(self, name: str, given: Mapping[str, Array]) -> ReferenceValue | None:
        """One value computed from others, or None where they do not determine it."""

    def arguments(self, name: str) -> Sequence[str]:
        """The values that the operator takes that makes this value."""


@dataclass(frozen=True, kw_only=True)
class ValueCheck:
    """One value of the model against its partner in the reference; true where it passes."""

    value: str
    partner: str
    node: GraphNode
    difference: Difference

    def __bool__(self) -> bool:
        return bool(self.difference)


@dataclass(kw_only=True)
class ValueChecker:
    """Compares the values of one model with one choice of settings, on one set of inputs.

    ``pairs`` maps the model's values to the reference's names of the same thing.
    """

    model: TappedModel
    pairs: Mapping[str, str]
    reference: ReferenceValues
    inputs: Mapping[str, Array]
    limits: Limits
    settings: RunSettings = AS_WRITTEN
    max_bytes: int = MAX_TAPPED_BYTES
    progress: Progress = SILENT

    def checks(self) -> Iterator[ValueCheck]:
        """Compare every value that has a partner, in graph order, a chunk of memory at a time.

        Of a model that cannot be run, the values before the node that stops it, and that one's.
        """
        runnable, reason = self._runnable()
        made = {name for node in runnable for name in node.outputs}
        values = [name for name in self.model.values if name in self.pairs and name in made]
        chunks = self.model.chunks(values, self.inputs, self.max_bytes)
        for number, chunk in enumerate(chunks):
            self.progress.stage(f"values, part {number + 1} of {len(chunks)}")
            expected = self.reference.values([self.pairs[name] for name in chunk])
            if reason:
                got = self.model.run_alone(runnable, self.inputs, chunk, self.settings)
            else:
                got = self.model.run(self.inputs, chunk, self.settings)
            for name in chunk:
                wanted = expected.get(self.pairs[name])
                if wanted is not None:
                    yield self.check(name, compare_value(name, got[name], wanted, self.limits))
        if reason:
            node = self.model.graph.nodes[len(runnable)]
            name = node.outputs[0]
            stopped = failed_difference(name, f"cannot be computed: {reason}")
            yield ValueCheck(
                value=name, partner=self.pairs.get(name, ""), node=node, difference=stopped
            )

    def _runnable(self) -> tuple[Sequence[GraphNode], str]:
        """All nodes; or the most from the first on that run, and why the next one does not."""
        nodes = self.model.graph.nodes
        try:
            self.model.run(self.inputs, [], self.settings)
        except BundleError as error:
            reason = str(error)
        else:
            return nodes, ""
        good, bad = 0, len(nodes)
        while good + 1 < bad:
            middle = (good + bad) // 2
            last = [name for name in nodes[middle - 1].outputs if name]
            try:
                self.model.run_alone(nodes[:middle], self.inputs, last[:1], self.settings)
                good = middle
            except BundleError as error:
                bad, reason = middle, str(error)
        return nodes[:good], reason

    def check(self, name: str, difference: Difference) -> ValueCheck:
        """A value's check, with its node and its partner."""
        return ValueCheck(
            value=name,
            partner=self.pairs[name],
            node=self.model.graph.producers[name],
            difference=difference,
        )


def compare_value(name: str, array: Any, wanted: ReferenceValue, limits: Limits) -> Difference:
    """One value against its reference, by rules 1 to 4 of the verdict."""
    dtype = getattr(getattr(array, "dtype", None), "name", "")
    expected, noise = wanted
    problem = structure_problem(array, expected, dtype)
    if problem:
        return failed_difference(name, problem)
    if array.dtype.kind != "f":
        return exact_difference(name, array, expected)
    return float_difference(
        name,
        array,
        expected,
        noise,
        unit_roundoff=UNIT_ROUNDOFFS[dtype],
        limits=limits,
    )
