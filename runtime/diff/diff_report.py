"""The result of comparing two models value by value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dlzoo.errors import DlzooError
from dlzoo.runtime.diff.attribution import Attribution
from dlzoo.runtime.diff.culprit import Culprit, Place, finite_or_none
from dlzoo.runtime.diff.value_checks import ValueCheck


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The untapped candidate's outputs with one choice of settings, on one set of inputs."""

    provider: str
    optimization: str
    kind: str
    rho2: float | None
    rhomax: float | None
    reasons: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.reasons


@dataclass(frozen=True, kw_only=True)
class DiffReport:
    """Two models, or one on two providers, compared; true where they are equal.

    Equal means: within the noise of float32 around the reference. ``culprits`` are the nodes to
    blame, the first one first; ``checks`` every value that was compared, in graph order, with
    ``places``, by value, saying where in the network it comes from.
    """

    reference: str
    candidate: str
    judgements: tuple[Judgement, ...]
    checks: tuple[ValueCheck, ...]
    places: dict[str, Place]
    num_values: int
    matched_by: str
    culprits: tuple[Culprit, ...] = ()
    attribution: Attribution | None = None
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return not self.culprits and all(self.judgements)

    @property
    def verdict(self) -> Literal["equal", "different"]:
        """The result in one word."""
        return "equal" if self else "different"

    @property
    def explanation(self) -> str:
        """The result in one sentence."""
        if self.culprits:
            whose = f" Origin: {self.attribution.text}." if self.attribution else ""
            return f"{self.culprits[0]}.{whose}"
        failed = [judgement for judgement in self.judgements if not judgement]
        if not failed:
            return "equal within the noise of float32"
        reasons = "; ".join(failed[0].reasons)
        return f"{reasons} ({failed[0].provider}, {failed[0].optimization})"

    @property
    def num_wrong(self) -> int:
        """The number of compared values that are beyond the limits."""
        return sum(not check for check in self.checks)

    def around_the_first(self, num_before: int, num_after: int) -> Sequence[ValueCheck]:
        """The checks around the first culprit, for a table."""
        if not self.culprits:
            return ()
        value = self.culprits[0].value
        index = next((i for i, c in enumerate(self.checks) if c.value == value), 0)
        return self.checks[max(0, index - num_before) : index + num_after + 1]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "verdict": self.verdict,
            "explanation": self.explanation,
            "reference": self.reference,
            "candidate": self.candidate,
            "candidates": [
                {
                    "provider": j.provider,
                    "optimization": j.optimization,
                    "inputs": j.kind,
                    "rho2": finite_or_none(j.rho2),
                    "rhomax": finite_or_none(j.rhomax),
                    "verdict": "equal" if j else "different",
                    "reasons": list(j.reasons),
                }
                for j in self.judgements
            ],
            "values": {
                "total": self.num_values,
                "compared": len(self.checks),
                "matched_by": self.matched_by,
                "wrong": self.num_wrong,
            },
            "culprits": [culprit.to_json() for culprit in self.culprits],
            "attribution": self.attribution.to_json() if self.attribution else None,
            "layers": [
                {
                    "value": check.value,
                    "partner": check.partner,
                    "node": check.node.label,
                    "op_type": check.node.op_type,
                    "module": self.places[check.value].module_path,
                    "source": self.places[check.value].source_line,
                    "rho2": finite_or_none(check.difference.rho2),
                    "rhomax": finite_or_none(check.difference.rhomax),
                    "verdict": "equal" if check else "different",
                }
                for check in self.checks
            ],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


class DifferenceError(DlzooError):
    """Two models differ beyond the noise; ``report`` says where."""

    exit_code = 1

    def __init__(self, message: str, *, report: DiffReport) -> None:
        super().__init__(message)
        self.report = report
