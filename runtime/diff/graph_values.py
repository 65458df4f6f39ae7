"""Another ONNX model as the reference: its values, their noise, and which are the candidate's.

Neither model is the truth; the first one is taken for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.errors import BundleError
from dlzoo.runtime.bundle.golden_set import NoiseFloor
from dlzoo.runtime.onnx_reader.onnx_nodes import GraphNode
from dlzoo.runtime.proof.difference import root_mean_square
from dlzoo.runtime.proof.recorded import MOVE_SEEDS, moved_inputs
from dlzoo.runtime.session.run_settings import RunSettings
from dlzoo.runtime.session.tapped_session import TappedModel

Array = npt.NDArray[Any]
_Key = tuple[object, ...]

#: Below this share of nodes that two graphs name alike, names say nothing about what they are.
_FEW_NAMES_IN_COMMON = 0.25


class GraphValues:
    """The values of a model on one set of inputs, by their names in it.

    The noise floor of a value is how far it moves when the inputs move by two units of their
    last place, as for recorded data.
    """

    def __init__(
        self,
        model: TappedModel,
        inputs: Mapping[str, Array],
        settings: RunSettings,
        title: str,
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.settings = settings
        self._title = title

    @property
    def title(self) -> str:
        """The model's name, for a sentence."""
        return self._title

    def values(self, names: Sequence[str]) -> dict[str, tuple[Array, NoiseFloor]]:
        """Those of these values that the model has."""
        known = set(self.model.values) | set(self.model.graph.outputs)
        wanted = [name for name in dict.fromkeys(names) if name in known]
        found = self.model.run(self.inputs, wanted, self.settings)
        worst = dict.fromkeys(wanted, NoiseFloor(rms=0.0, max=0.0))
        if any(array.dtype.kind == "f" for array in self.inputs.values()):
            for seed in MOVE_SEEDS:
                moved = self.model.run(moved_inputs(self.inputs, seed), wanted, self.settings)
                for name in wanted:
                    worst[name] = _larger(worst[name], _distance(moved[name], found[name]))
        return {name: (_as_float64(found[name]), worst[name]) for name in wanted}

    def values_from(
        self, name: str, given: Mapping[str, Array]
    ) -> tuple[Array, NoiseFloor] | None:
        """One value computed from others by this model's own nodes."""
        nodes, taken = self.model.graph.segment(name, given)
        inputs = {n: given[n] if n in given else self.inputs[n] for n in taken}
        try:
            found = self.model.run_alone(nodes, inputs, [name], self.settings)[name]
        except BundleError:
            return None
        return _as_float64(found), NoiseFloor(rms=0.0, max=0.0)

    def arguments(self, name: str) -> tuple[str, ...]:
        """The values of floats that the node takes that makes this one."""
        node = self.model.graph.producers.get(name)
        return tuple(n for n in node.inputs if n in self.model.values) if node else ()


def _as_float64(array: Any) -> Array:
    return array.astype(np.float64) if isinstance(array, np.ndarray) else np.array([])


def _distance(moved: Any, found: Any) -> NoiseFloor:
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
        return NoiseFloor(rms=0.0, max=0.0)
    if moved.shape != found.shape:
        return NoiseFloor(rms=0.0, max=0.0)
    both = np.isfinite(moved) & np.isfinite(found)
    error = moved[both].astype(np.float64) - found[both]
    return NoiseFloor(rms=root_mean_square(error), max=float(np.abs(error).max(initial=0.0)))


def _larger(a: NoiseFloor, b: NoiseFloor) -> NoiseFloor:
    return NoiseFloor(rms=max(a.rms, b.rms), max=max(a.max, b.max))


@dataclass(frozen=True, kw_only=True)
class Matching:
    """``pairs`` maps the candidate's values to the reference's; ``by`` says how they were found."""

    pairs: dict[str, str]
    by: str


def match_models(candidate: TappedModel, reference: TappedModel) -> Matching:
    """Pair the values of two models: outputs in order, the others by alignment.

    The nodes of both graphs are laid side by side in topological order, first those that agree in
    name, operator and shape; in a gap as long on both sides they are paired one by one, in any
    other gap by name alone. Where hardly any names agree, operators and shapes decide. A pair
    always has one shape.
    """
    ours, theirs = _rows(candidate), _rows(reference)
    by = "name"
    pairs, num_equal = _aligned(
        [(name, node.op_type, shape) for name, node, shape in ours],
        [(name, node.op_type, shape) for name, node, shape in theirs],
        ours,
        theirs,
    )
    if num_equal < _FEW_NAMES_IN_COMMON * min(len(ours), len(theirs)):
        by = "operator and shape"
        pairs, _ = _aligned(
            [(node.op_type, shape) for _, node, shape in ours],
            [(node.op_type, shape) for _, node, shape in theirs],
            ours,
            theirs,
        )
    taken = set(reference.graph.outputs)
    pairs = {ours: theirs for ours, theirs in pairs.items() if theirs not in taken}
    outputs = zip(candidate.graph.outputs, reference.graph.outputs, strict=False)
    return Matching(pairs=pairs | dict(outputs), by=by)


_Row = tuple[str, GraphNode, tuple[object, ...]]


def _rows(model: TappedModel) -> list[_Row]:
    producers = model.graph.producers
    return [
        # Symbols have names of their own in each model.
        (name, producers[name], tuple(d if isinstance(d, int) else "?" for d in dims))
        for name, (_, dims) in model.values.items()
    ]


def _aligned(
    our_keys: Sequence[_Key], their_keys: Sequence[_Key], ours: list[_Row], theirs: list[_Row]
) -> tuple[dict[str, str], int]:
    """The pairs, and how many rows agree in the whole key."""
    matcher = SequenceMatcher(None, our_keys, their_keys, autojunk=False)
    pairs: dict[str, str] = {}
    num_equal = 0
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        if kind == "equal":
            num_equal += i_end - i
        if i_end - i == j_end - j:
            for a, b in zip(ours[i:i_end], theirs[j:j_end], strict=True):
                if a[2] == b[2]:
                    pairs[a[0]] = b[0]
            continue
        named = {row[0]: row for row in theirs[j:j_end]}
        for name, node, shape in ours[i:i_end]:
            other = named.get(name)
            if other is not None and other[2] == shape and other[1].scopes == node.scopes:
                pairs[name] = name
    return pairs, num_equal
