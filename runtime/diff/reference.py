"""The reference that a graph is compared with: the protocol, and another graph as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dlzoo.runtime.diff.culprit import Place
from dlzoo.runtime.diff.graph_values import GraphValues, Matching, match_models
from dlzoo.runtime.diff.value_checks import ReferenceValues
from dlzoo.runtime.onnx_reader.onnx_nodes import GraphNode
from dlzoo.runtime.session.run_settings import AS_WRITTEN, RunSettings
from dlzoo.runtime.session.tapped_session import TappedModel

Array = npt.NDArray[Any]


class Reference(Protocol):
    """A model that a graph is compared with: a network, or another graph."""

    @property
    def title(self) -> str:
        """Its name, for a sentence."""

    @property
    def names_are_sure(self) -> bool:
        """Whether a value's partner is certainly the same thing, so that it alone can accuse."""

    def match(self, candidate: TappedModel) -> Matching:
        """The candidate's values, by the names that they have here."""

    def values_on(
        self, inputs: Mapping[str, Array], candidate: TappedModel
    ) -> ReferenceValues:
        """The right values on the candidate's inputs."""

    def place(self, partner: str, node: GraphNode | None) -> Place:
        """The place in the network that a value comes from."""

    def details(
        self, node: GraphNode, partner: str, candidate: TappedModel
    ) -> tuple[str, ...]:
        """Differences in the node itself: its kind, attributes and weights."""

    def twin(self) -> TappedModel | None:
        """The candidate as it should have been written, with the same names."""


@dataclass
class GraphReference:
    """Another graph, or the same one on another provider."""

    model: TappedModel
    title: str
    settings: RunSettings = AS_WRITTEN

    @property
    def names_are_sure(self) -> bool:
        """The same file has the same names."""
        return self._is_same_file

    _is_same_file: bool = False

    def match(self, candidate: TappedModel) -> Matching:
        """By names, or by operators and shapes where names differ."""
        if candidate.path.resolve() == self.model.path.resolve():
            self._is_same_file = True
            names = [*candidate.values, *candidate.graph.outputs]
            return Matching(pairs={name: name for name in names}, by="name")
        return match_models(candidate, self.model)

    def values_on(
        self, inputs: Mapping[str, Array], candidate: TappedModel
    ) -> ReferenceValues:
        """This graph's values on the same inputs, by its own names for them."""
        own, theirs = self.model.graph.inputs, candidate.graph.inputs
        if set(own) == set(theirs) or len(own) != len(theirs):
            named = dict(inputs)
        else:
            named = {ours: inputs[name] for ours, name in zip(own, theirs, strict=True)}
        return GraphValues(self.model, named, self.settings, self.title)

    def place(self, partner: str, node: GraphNode | None) -> Place:
        """As either graph says."""
        place = place_of_node(node)
        return place if str(place) else place_of_node(self.model.graph.producers.get(partner))

    def details(
        self, node: GraphNode, partner: str, candidate: TappedModel
    ) -> tuple[str, ...]:
        """Against the node that makes the partner here."""
        other = self.model.graph.producers.get(partner)
        if other is None:
            return ()
        if (other.op_type, other.domain) != (node.op_type, node.domain):
            return (f"{self.title} has {other.op_type} there",)
        names = sorted(
            name
            for name in {*node.attributes, *other.attributes}
            if node.attributes.get(name) != other.attributes.get(name)
        )
        details = (
            (f"other attributes than in {self.title}: {', '.join(names)}",) if names else ()
        )
        stored = self.model.graph.initializers
        arrays = {
            ours: stored[theirs].array()
            for ours, theirs in zip(node.inputs, other.inputs, strict=False)
            if theirs in stored
        }
        return details + weight_details(node, candidate, arrays, f"that of {self.title}")

    def twin(self) -> TappedModel | None:
        """None: its own values are all known."""
        return None


def place_of_node(node: GraphNode | None) -> Place:
    """The place that a node comes from, as its own metadata say."""
    if node is None or node.module_path is None:
        return Place()
    return Place(
        module_path=node.module_path,
        operator=node.scopes[-1].rstrip("_0123456789"),
    )


def weight_details(
    node: GraphNode, candidate: TappedModel, right: Mapping[str, Array], whose: str
) -> tuple[str, ...]:
    """The weights of a node that are not what they should be, a sentence each."""
    details = []
    stored = candidate.graph.initializers
    for name in node.inputs:
        if name not in stored or name not in right:
            continue
        ours, theirs = stored[name].array(), right[name]
        if ours.shape != theirs.shape:
            details.append(
                f"{name!r} has shape {list(ours.shape)}, {whose} {list(theirs.shape)}"
            )
        elif num := _num_different(ours, theirs):
            details.append(f"{name!r} differs from {whose} in {num} of {ours.size} elements")
    return tuple(details)


def _num_different(ours: Array, theirs: Array) -> int:
    both_nan = np.isnan(ours) & np.isnan(theirs) if ours.dtype.kind == "f" else False
    return int(((ours != theirs) & ~np.asarray(both_nan)).sum())
