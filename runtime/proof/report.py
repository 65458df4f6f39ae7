"""The report of a proof: results of every run, the power of the comparison, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from dlzoo.errors import BundleError, DlzooError
from dlzoo.runtime.proof.difference import WorstElement
from dlzoo.runtime.proof.layer_errors import LayerErrors
from dlzoo.runtime.proof.limits import POWER_THRESHOLD

Verdict = Literal["pass", "fail", "vacuous"]

_NUM_MISSED_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class CandidateResult:
    """One golden set through one way of computing it.

    ``rho2`` and ``rhomax`` are None where no finite element could be compared. ``kernels`` says how
    operators of domain ``dlzoo`` ran: ``native`` or ``function``; None where the model has none.
    ``worst`` holds the worst element of each output, by its name.
    """

    provider: str
    optimization: str
    batch: int
    golden: str
    kind: str
    verdict: Literal["pass", "fail"]
    rho2: float | None
    rhomax: float | None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    kernels: Literal["native", "function"] | None = None
    worst: Mapping[str, WorstElement] = field(default_factory=dict, hash=False)

    @property
    def place(self) -> str:
        """The provider and its kernels, as ``cpu`` or ``cpu (native)``."""
        return f"{self.provider} ({self.kernels})" if self.kernels else self.provider


@dataclass(frozen=True, kw_only=True)
class Power:
    """How small a change of the weights the comparison notices, tensor by tensor.

    Of ``sampled_of`` weight tensors ``tried`` were judged, and in ``detected`` of them a change of
    10 % or less fails the comparison; ``missed`` names the others. ``without_effect`` are tensors
    that no output depends on: they are not among those tried. ``smallest_changes`` holds the
    smallest relative change of each seen tensor that fails; it is empty in bundles of before 0.2,
    where ``detected`` counts changes of 0.1 % that were tried. ``blind_outputs`` are outputs at
    which fewer than nine in ten of the tensors that reach them are seen.
    """

    detected: int
    tried: int
    sampled_of: int
    missed: tuple[str, ...] = ()
    without_effect: tuple[str, ...] = ()
    smallest_changes: Mapping[str, float] = field(default_factory=dict, hash=False)
    blind_outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.detected <= self.tried <= self.sampled_of:
            raise ValueError(f"detected <= tried <= sampled_of does not hold: {self}")

    @property
    def is_sufficient(self) -> bool:
        """Whether enough of the weight tensors are seen, at every output."""
        is_seen = self.tried > 0 and self.detected >= POWER_THRESHOLD * self.tried
        return is_seen and not self.blind_outputs

    @property
    def least_visible(self) -> list[tuple[str, float]]:
        """The seen tensors and their smallest changes, the least visible first."""
        return sorted(self.smallest_changes.items(), key=lambda item: (-item[1], item[0]))

    def __str__(self) -> str:
        """One sentence, as people ask it."""
        counted = f"{self.detected} of {self.tried} weight tensors"
        if not self.smallest_changes:
            return f"a small change in any of {counted} would have been noticed"
        ordered = self.least_visible
        largest, median = ordered[0][1], ordered[len(ordered) // 2][1]
        whole = "any" if self.detected == self.tried else f"any of {counted}"
        return (
            f"a change of {_percent(median)} in half of the weight tensors, of "
            f"{_percent(largest)} in {whole}, would have been noticed"
        )


def _percent(share: float) -> str:
    """A share in percent, one digit: 0.002 %."""
    digits = max(0, 1 - math.floor(math.log10(share * 100)) - 1) if share else 0
    return f"{share * 100:.{digits}f} %"


@dataclass(frozen=True, kw_only=True)
class Report:
    """The verdict on a model, with everything that it rests on; true where it is ``pass``.

    ``layers`` are the errors inside the model; None where they were not measured.
    """

    verdict: Verdict
    bundle: str
    opset: int
    candidates: tuple[CandidateResult, ...]
    power: Power | None
    dynamic_axes: dict[str, dict[str, Any]]
    seconds: dict[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    layers: LayerErrors | None = None

    def __bool__(self) -> bool:
        return self.verdict == "pass"

    @property
    def explanation(self) -> str:
        """The reasons for the verdict, in one line; empty where it is ``pass``."""
        if self:
            return ""
        reasons = list(self.reasons)
        failures = [result for result in self.candidates if result.verdict == "fail"]
        if failures:
            first = failures[0]
            reasons.append(
                f"{len(failures)} of {len(self.candidates)} runs fail, first {first.place}, "
                f"optimization {first.optimization}, batch {first.batch}, {first.kind}: "
                f"{'; '.join(first.reasons)}"
            )
        return " ".join(f"{reason.rstrip('.')}." for reason in reasons)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; a number that is not finite becomes null."""
        return {
            "verdict": self.verdict,
            "bundle": self.bundle,
            "opset": self.opset,
            "candidates": [_candidate_to_json(result) for result in self.candidates],
            "power": None if self.power is None else _json_values(asdict(self.power)),
            "dynamic_axes": {symbol: dict(axis) for symbol, axis in self.dynamic_axes.items()},
            "seconds": dict(self.seconds),
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "layers": None if self.layers is None else self.layers.to_json(),
        }

    def to_parity(self) -> dict[str, Any]:
        """The content of parity.json: the report without the seconds, which differ from run to run."""
        document = self.to_json()
        del document["seconds"]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Report:
        """Read what :meth:`to_json` or :meth:`to_parity` gave.

        Raises:
            BundleError: it is something else.
        """
        try:
            return cls(
                verdict=document["verdict"],
                bundle=document["bundle"],
                opset=document["opset"],
                candidates=tuple(_candidate_from_json(e) for e in document["candidates"]),
                power=power_from_json(document["power"]),
                dynamic_axes=dict(document["dynamic_axes"]),
                seconds=dict(document.get("seconds", {})),
                reasons=tuple(document["reasons"]),
                notes=tuple(document["notes"]),
                layers=None
                if document.get("layers") is None
                else LayerErrors.from_json(document["layers"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"parity.json is not a report of dlzoo: {error!r}. Export the bundle again."
            ) from None


def _missed_text(power: Power) -> str:
    shown = ", ".join(power.missed[:_NUM_MISSED_SHOWN])
    more = ", …" if len(power.missed) > _NUM_MISSED_SHOWN else ""
    return f" (missed in {shown}{more})" if shown else ""


def power_from_json(document: Any) -> Power | None:
    """The power of a report's JSON; None where there is none or it makes no sense."""
    if document is None:
        return None
    try:
        facts = dict(document)
        missed, without_effect, blind = (
            tuple(str(name) for name in facts.pop(key, ()))
            for key in ("missed", "without_effect", "blind_outputs")
        )
        changes = dict(facts.pop("smallest_changes", {}))
        return Power(
            detected=int(facts.pop("detected")),
            tried=int(facts.pop("tried")),
            sampled_of=int(facts.pop("sampled_of")),
            missed=missed,
            without_effect=without_effect,
            smallest_changes={str(name): float(change) for name, change in changes.items()},
            blind_outputs=blind,
        )
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise BundleError(
            "parity.json: power should be detected, tried and sampled_of, got "
            f"{repr(document)[:200]} "
            f"({error}). Export the bundle again."
        ) from None


def _candidate_to_json(result: CandidateResult) -> dict[str, Any]:
    worst = [
        {
            "output": name,
            "index": list(element.index),
            "reference": _json_number(element.reference),
            "got": _json_number(element.got),
            "error": _json_number(element.error),
        }
        for name, element in result.worst.items()
    ]
    return {**_json_values(asdict(result)), "worst": worst}


def _candidate_from_json(entry: Mapping[str, Any]) -> CandidateResult:
    worst = {
        found["output"]: WorstElement(
            index=tuple(found["index"]),
            reference=float(found["reference"]),
            got=float(found["got"]),
        )
        for found in entry.get("worst", ())
    }
    changes = {"reasons": tuple(entry["reasons"]), "notes": tuple(entry["notes"])}
    return CandidateResult(**{**entry, **changes, "worst": worst})


def _json_number(value: float) -> float | str:
    """An element as it is: JSON has no number for NaN and Inf, and null would hide which."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")


def _json_values(entry: dict[str, Any]) -> dict[str, Any]:
    def finite(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return list(value) if isinstance(value, tuple) else value

    return {key: finite(value) for key, value in entry.items()}


def judge(
    results: Sequence[CandidateResult],
    power: Power | None,
    *,
    power_required: bool,
    problems: Sequence[str] = (),
    silent_sizes: Sequence[str] = (),
) -> tuple[Verdict, tuple[str, ...]]:
    """Judge all results together: the verdict, and the reasons where it is not ``pass``.

    ``fail`` where a run failed or a problem was found beside them; else ``vacuous`` where the
    comparison could hardly have failed: a provider and level without one finite number to
    compare, or faults of which fewer than ``POWER_THRESHOLD`` were caught; else ``pass``.

    Source: docs/DESIGN.md, section 6, rule 5.

    Args:
        results: every run.
        power: what faults were caught; None where that was not measured.
        power_required: whether a power that was not measured makes the verdict ``vacuous``.
        problems: what is wrong with the model apart from its numbers.
        silent_sizes: sizes at which float32 itself says nothing, a reason each.
    """
    if problems or any(result.verdict == "fail" for result in results):
        return "fail", tuple(problems)
    reasons = list(silent_sizes)
    if not results:
        reasons.append("nothing was compared")
    ways = dict.fromkeys((result.place, result.optimization) for result in results)
    for place, optimization in ways:
        if not any(
            result.rho2 is not None
            for result in results
            if (result.place, result.optimization) == (place, optimization)
        ):
            reasons.append(
                f"on {place}, optimization {optimization}, no finite number was compared"
            )
    if power is None:
        if power_required:
            reasons.append("its power was never measured: parity.json holds none")
    elif power.tried == 0:
        reasons.append(
            f"its power is nothing: of {power.sampled_of} weight tensors none has a visible effect on "
            "the outputs"
        )
    elif power.detected / power.tried < POWER_THRESHOLD:
        reasons.append(
            f"only {power.detected} of {power.tried} weight tensors are visible in the outputs, "
            f"expected at least {POWER_THRESHOLD:.0%}{_missed_text(power)}: a change of 10 % in "
            "any other would pass. Use trained weights, or random ones that let signal through; "
            "whole numbers hide small errors, so let the network give its scores, too"
        )
    elif power.blind_outputs:
        named = ", ".join(repr(name) for name in power.blind_outputs)
        reasons.append(
            f"at output {named} fewer than {POWER_THRESHOLD:.0%} of the weight tensors that reach "
            "it are visible: a change of 10 % in the others would pass. Use trained weights, or "
            "inputs at which that output varies"
        )
    return ("vacuous" if reasons else "pass"), tuple(reasons)


class ProofError(DlzooError):
    """The verdict on a model is fail or vacuous; ``report`` holds every number."""

    exit_code = 1

    def __init__(self, message: str, *, report: Report) -> None:
        super().__init__(message)
        self.report = report
