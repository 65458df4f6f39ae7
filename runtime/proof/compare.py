"""Two sets of arrays -> their difference, in units of the noise that float32 itself makes.

The verdict's rules 1 to 4 (docs/DESIGN.md, section 6). Nothing here has a default tolerance.

Symbols: y is the float64 reference, o the candidate, u its unit roundoff, N the noise floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.proof.difference import (
    Difference,
    WorstElement,
    class_difference,
    exact_difference,
    failed_difference,
    float_difference,
    structure_problem,
)
from dlzoo.runtime.proof.limits import Limits

#: u: half the distance from 1 to the next number, by arithmetic (TF32: 10 stored bits, as fp16).
UNIT_ROUNDOFFS = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "tf32": 2.0**-11,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All outputs of one run; true where every one passes and the structure is right."""

    differences: tuple[Difference, ...]
    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.differences) and not self.reasons and all(self.differences)

    @property
    def rho2(self) -> float | None:
        """The worst over the outputs; None where none has a number."""
        return _worst(difference.rho2 for difference in self.differences)

    @property
    def rhomax(self) -> float | None:
        """The worst over the outputs; None where none has a number."""
        return _worst(difference.rhomax for difference in self.differences)

    @property
    def all_reasons(self) -> tuple[str, ...]:
        """Why it fails: the structure first, then each output by name."""
        named = [
            f"output {d.name!r} {reason}" for d in self.differences for reason in d.reasons
        ]
        return (*self.reasons, *named)

    @property
    def worst(self) -> dict[str, WorstElement]:
        """The worst element of each output that could be compared, by its name."""
        return {d.name: d.worst for d in self.differences if d.worst is not None}

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on a comparison that passes."""
        return tuple(f"output {d.name!r} {note}" for d in self.differences for note in d.notes)


def compare_outputs(
    candidate: Mapping[str, npt.NDArray[Any]],
    golden: GoldenSet,
    *,
    dtypes: Mapping[str, str],
    unit_roundoff: float,
    limits: Limits,
) -> Comparison:
    """Compare a candidate's outputs with a golden set; nothing is ever broadcast.

    rho2 = RMS(o - y) / N2, N2 = max(noise.rms, u·RMS(signal), u·tiny)
    rhomax = max|o - y| / Nmax, Nmax = max(noise.max, u·max|signal|, u·tiny)

    The signal are the elements of y that a rounding can change. tiny is the dtype's smallest normal number: u·tiny is what gradual underflow loses, and the
    only floor under an output that is zero everywhere. Outputs of integers or booleans must be
    equal.

    Source: docs/DESIGN.md, section 6, rules 1 to 4.

    Args:
        candidate: output name -> array, all that the candidate gave.
        golden: the reference and its noise floor.
        dtypes: output name -> the numpy dtype name that the model declares.
        unit_roundoff: u of the candidate's arithmetic, from ``UNIT_ROUNDOFFS``.
        limits: the largest rho2 and rhomax that pass.
    """
    assert 0 < unit_roundoff < 1, unit_roundoff
    reasons = _structure_reasons(candidate, golden)
    differences = []
    for name, reference in golden.reference.items():
        if name not in candidate:
            continue
        problem = structure_problem(candidate[name], reference, dtypes.get(name))
        if problem:
            differences.append(failed_difference(name, problem))
            continue
        if candidate[name].dtype.kind != "f":
            differences.append(exact_difference(name, candidate[name], reference))
            continue
        differences.append(
            float_difference(
                name,
                candidate[name],
                reference,
                golden.noise[name],
                unit_roundoff=unit_roundoff,
                limits=limits,
            )
        )
    return Comparison(differences=tuple(differences), reasons=tuple(reasons))


def compare_special_values(
    candidate: Mapping[str, npt.NDArray[Any]], golden: GoldenSet, *, dtypes: Mapping[str, str]
) -> Comparison:
    """Compare the answers to inputs with NaN and infinities: only where NaN and infinities are.

    Args:
        candidate: output name -> array, all that the candidate gave.
        golden: inputs that are not all finite, and PyTorch's answers.
        dtypes: output name -> the numpy dtype name that the model declares.
    """
    differences = []
    for name, reference in golden.reference.items():
        if name in candidate:
            problem = structure_problem(candidate[name], reference, dtypes.get(name))
            differences.append(
                failed_difference(name, problem)
                if problem
                else class_difference(name, candidate[name], reference)
            )
    reasons = _structure_reasons(candidate, golden)
    return Comparison(differences=tuple(differences), reasons=tuple(reasons))


def _structure_reasons(
    candidate: Mapping[str, npt.NDArray[Any]], golden: GoldenSet
) -> list[str]:
    expected, got = list(golden.reference), list(candidate)
    if not expected:
        return ["the golden data hold no output"]
    if not set(expected) & set(got):
        return [f"no output has a name that was expected: got {got}, expected {expected}"]
    reasons = []
    if missing := [name for name in expected if name not in candidate]:
        reasons.append(f"outputs are missing: {missing}, got {got}")
    if extra := [name for name in got if name not in golden.reference]:
        reasons.append(f"unexpected outputs: {extra}, expected {expected}")
    return reasons


def _worst(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
