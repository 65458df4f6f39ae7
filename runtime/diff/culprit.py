"""The first wrong value, described in one line for people and in full for programs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dlzoo.runtime.diff.localization import Suspect
from dlzoo.runtime.proof.difference import Difference


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place in the network that a value comes from; empty where that is unknown."""

    module_path: str = ""
    source_line: str = ""
    operator: str = ""

    def __str__(self) -> str:
        path = self.module_path or ("the network's forward" if self.operator else "")
        return f"{path} ({self.source_line})" if self.source_line else path


@dataclass(frozen=True, kw_only=True)
class Culprit:
    """The first wrong value of a model and what makes it.

    ``kind`` is that of :class:`dlzoo.runtime.diff.localization.Suspect`. ``alone`` is how the nodes did
    on the reference's own inputs; None where they could not be run alone. ``details`` are
    sentences on what differs in the nodes themselves.
    """

    value: str
    nodes: tuple[str, ...]
    op_types: tuple[str, ...]
    place: Place
    kind: str
    takes: str
    expected: str
    expected_place: Place
    difference: Difference
    alone: Difference | None
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = str(self.expected_place if self.kind == "missing" else self.place)
        return f"{where or self.value}: {self.sentence}"

    @property
    def sentence(self) -> str:
        """The error, without its place."""
        nodes = self._nodes_text()
        if self.kind == "missing":
            what = self.expected_place.operator or self.expected
            return f"{what} is missing in the graph: ONNX node {nodes} takes {self.takes!r} instead"
        if self.kind == "input":
            return f"ONNX node {nodes} takes {self.takes!r}, expected {self.expected!r}"
        reasons = "; ".join(self.difference.reasons)
        if self.kind == "sum":
            return (
                f"the value of ONNX node {nodes} {reasons}, but no node alone is wrong: small "
                "errors add up to it"
            )
        details = f" ({'; '.join(self.details)})" if self.details else ""
        return f"ONNX node {nodes} {reasons}{details}"

    @property
    def rerun(self) -> str:
        """The result of running the nodes alone, as a sentence."""
        if self.alone is None:
            return "not run alone: its inputs have no partners"
        if self.alone:
            return "alone on right inputs it is right"
        return f"alone on right inputs it is also wrong: {'; '.join(self.alone.reasons)}"

    def _nodes_text(self) -> str:
        shown = [f"{n} ({o})" for n, o in zip(self.nodes, self.op_types, strict=True)]
        if len(shown) > 3:
            return f"{shown[0]} … {shown[-1]} ({len(shown)} nodes)"
        return " + ".join(shown)

    def to_json(self) -> dict[str, Any]:
        """For programs; numbers that are not finite become None."""
        return {
            "value": self.value,
            "nodes": [
                {"name": name, "op_type": op_type}
                for name, op_type in zip(self.nodes, self.op_types, strict=True)
            ],
            "module": self.place.module_path,
            "operator": self.place.operator,
            "source": self.place.source_line,
            "kind": self.kind,
            "takes": self.takes,
            "expected": self.expected,
            "expected_module": self.expected_place.module_path,
            "difference": _numbers(self.difference),
            "alone": None if self.alone is None else _numbers(self.alone),
            "details": list(self.details),
            "text": str(self),
        }


def finite_or_none(value: float | None) -> float | None:
    """JSON has neither NaN nor Inf."""
    return value if value is not None and math.isfinite(value) else None


def _numbers(difference: Difference) -> dict[str, Any]:
    return {
        "rho2": finite_or_none(difference.rho2),
        "rhomax": finite_or_none(difference.rhomax),
        "max_abs_error": finite_or_none(difference.max_abs_error),
        "reasons": list(difference.reasons),
    }


def culprit_of(
    suspect: Suspect, place: Place, expected_place: Place, details: tuple[str, ...]
) -> Culprit:
    """The culprit that a suspect is about."""
    return Culprit(
        value=suspect.check.value,
        nodes=tuple(node.label for node in suspect.nodes),
        op_types=tuple(node.op_type for node in suspect.nodes),
        place=place,
        kind=suspect.kind,
        takes=suspect.takes,
        expected=suspect.expected,
        expected_place=expected_place,
        difference=suspect.check.difference,
        alone=suspect.alone,
        details=details,
    )
