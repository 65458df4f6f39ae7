"""One output against its reference: the difference, in units of the noise that float32 makes.

Symbols: y is the float64 reference, o the candidate, u its unit roundoff, N the noise floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.runtime.bundle.golden_set import NoiseFloor
from dlzoo.runtime.proof.limits import Limits

Float64Array = npt.NDArray[np.float64]

#: The classes of an element.
CLASS_NAMES = ("finite", "NaN", "+Inf", "-Inf")


@dataclass(frozen=True, kw_only=True)
class WorstElement:
    """The element that is farthest from the reference, or the first that is NaN or Inf wrongly."""

    index: tuple[int, ...]
    reference: float
    got: float

    @property
    def error(self) -> float:
        """The signed error: got - reference."""
        return self.got - self.reference


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference of one output from the reference; true where it passes.

    ``rho2`` and ``rhomax`` are None where no finite element could be compared, ``notes`` then
    say so. ``num_top1_changes`` counts samples whose top class differs although the reference's
    margin is more than twice the largest error that the limit allows.
    """

    name: str
    rho2: float | None
    rhomax: float | None
    max_abs_error: float | None
    num_top1_changes: int = 0
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    worst: WorstElement | None = None

    def __bool__(self) -> bool:
        return not self.reasons


def structure_problem(o: object, y: Float64Array, dtype: str | None) -> str:
    """The reason why an output cannot be compared at all, or an empty text."""
    if not isinstance(o, np.ndarray):
        return f"is a {type(o).__name__}, expected a tensor"
    if dtype is None:
        return "is not declared by the model"
    if o.dtype.name != dtype:
        return f"has dtype {o.dtype.name}, expected {dtype}"
    if o.shape != y.shape:
        return f"has shape {list(o.shape)}, expected {list(y.shape)}"
    if o.size == 0:
        return f"is empty: its shape is {list(o.shape)}"
    if o.dtype.kind not in "fiub":
        return f"has dtype {o.dtype.name}, which cannot be compared with numbers"
    return ""


def failed_difference(name: str, reason: str) -> Difference:
    """An output that fails before any number could be computed."""
    return Difference(name=name, rho2=None, rhomax=None, max_abs_error=None, reasons=(reason,))


def class_difference(name: str, candidate: npt.NDArray[Any], y: Float64Array) -> Difference:
    """Compare only where elements are finite, NaN, +Inf or -Inf; whole numbers must be equal."""
    if candidate.dtype.kind != "f":
        return exact_difference(name, candidate, y)
    o = candidate.astype(np.float64)
    wrong = _classes(_rounded(y, candidate.dtype)) != _classes(o)
    reasons = () if not wrong.any() else (_class_reason(o, y, wrong),)
    return Difference(name=name, rho2=None, rhomax=None, max_abs_error=None, reasons=reasons)


def _class_reason(o: Float64Array, y: Float64Array, wrong: npt.NDArray[np.bool_]) -> str:
    first = _element(o, y, int(np.argmax(wrong)))
    return (
        f"has {int(wrong.sum())} of {o.size} elements that are finite, NaN or Inf where they "
        f"should not be: at {list(first.index)} got {first.got:g}, expected {first.reference:g}"
    )


def exact_difference(name: str, o: npt.NDArray[Any], y: Float64Array) -> Difference:
    """Integers and booleans: equal everywhere, or it fails."""
    different = o != y
    num_different = int(different.sum())
    if num_different:
        return Difference(
            name=name,
            rho2=None,
            rhomax=None,
            max_abs_error=None,
            reasons=(
                f"differs in {num_different} of {o.size} {o.dtype.name} values; "
                "all must be equal",
            ),
            worst=_element(o, y, int(np.argmax(different))),
        )
    return Difference(name=name, rho2=0.0, rhomax=0.0, max_abs_error=0.0)


def float_difference(
    name: str,
    candidate: npt.NDArray[Any],
    y: Float64Array,
    noise: NoiseFloor,
    *,
    unit_roundoff: float,
    limits: Limits,
) -> Difference:
    """Masks of NaN and Inf first, then rho2, rhomax and decisions over the finite elements.

    A reference beyond the dtype's largest value counts as Inf: the model cannot hold it.

    Source: docs/DESIGN.md, section 6, rules 2 to 4; the formulas are in ``compare_outputs``.

    Args:
        name: of the output.
        candidate: of a float dtype and of the reference's shape.
        y: the reference.
        noise: the noise floor.
        unit_roundoff: u of the candidate's arithmetic.
        limits: the largest rho2 and rhomax that pass.
    """
    o = candidate.astype(np.float64)
    expected_class, got_class = _classes(_rounded(y, candidate.dtype)), _classes(o)
    wrong = expected_class != got_class
    reasons, notes = [], []
    worst = None
    if wrong.any():
        worst = _element(o, y, int(np.argmax(wrong)))
        reasons.append(_class_reason(o, y, wrong))
    finite = (expected_class == 0) & (got_class == 0)
    if not finite.any():
        notes.append("has no finite element to compare: only the NaN and Inf masks were")
        return Difference(
            name=name,
            rho2=None,
            rhomax=None,
            max_abs_error=None,
            reasons=tuple(reasons),
            notes=tuple(notes),
            worst=worst,
        )

    underflow = unit_roundoff * float(np.finfo(candidate.dtype).tiny) or np.nextafter(0.0, 1.0)
    y_finite = y[finite]
    with np.errstate(over="ignore"):  # an error beyond float64 is Inf, and fails
        error = o[finite] - y_finite
        position = int(np.argmax(np.abs(error)))
        max_error = float(np.abs(error[position]))
        signal_rms, signal_max = noise.signal_rms, noise.signal_max
        if signal_rms is None or signal_max is None:
            signal_rms, signal_max = root_mean_square(y_finite), float(np.abs(y_finite).max())
        noise_rms = max(noise.rms, unit_roundoff * signal_rms, underflow)
        noise_max = max(noise.max, unit_roundoff * signal_max, underflow)
        rho2 = float(np.float64(root_mean_square(error)) / noise_rms)
        rhomax = float(np.float64(max_error) / noise_max)
    if worst is None:
        flat = position if finite.all() else int(np.flatnonzero(finite)[position])
        worst = _element(o, y, flat)
    if not rho2 <= limits.rho2:
        reasons.append(f"has rho2 {rho2:.3g}, the limit is {limits.rho2:g}")
    if not rhomax <= limits.rhomax:
        reasons.append(f"has rhomax {rhomax:.3g}, the limit is {limits.rhomax:g}")
    num_changes = _num_top1_changes(o, y, finite, allowed_error=limits.rhomax * noise_max)
    if num_changes:
        reasons.append(f"changes the top class of {num_changes} of {len(o)} samples")
    return Difference(
        name=name,
        rho2=rho2,
        rhomax=rhomax,
        max_abs_error=max_error,
        num_top1_changes=num_changes,
        reasons=tuple(reasons),
        notes=tuple(notes),
        worst=worst,
    )


def _element(o: npt.NDArray[Any], y: Float64Array, position: int) -> WorstElement:
    """The element at a place of the flattened arrays."""
    index = tuple(int(i) for i in np.unravel_index(position, y.shape))
    return WorstElement(index=index, reference=float(y[index]), got=float(o[index]))


def root_mean_square(values: Float64Array) -> float:
    """sqrt(mean(x²)), also where a square would overflow or underflow.

    Shape: any -> a number; 0 for no element.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0 or not np.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.mean(np.square(values / largest))))


def _rounded(y: Float64Array, dtype: np.dtype[Any]) -> Float64Array:
    """The reference as the candidate's dtype would hold it: beyond its largest value lies Inf."""
    with np.errstate(over="ignore"):
        return y.astype(dtype).astype(np.float64)


def _classes(values: Float64Array) -> npt.NDArray[np.int8]:
    """The index into ``CLASS_NAMES`` of every element."""
    classes = np.zeros(values.shape, np.int8)
    classes[np.isnan(values)] = 1
    classes[values == np.inf] = 2
    classes[values == -np.inf] = 3
    return classes


def _num_top1_changes(
    o: Float64Array, y: Float64Array, finite: npt.NDArray[np.bool_], *, allowed_error: float
) -> int:
    """Samples of scores whose top class differs, where the margin is above twice the allowed error.

    Scores within ``allowed_error`` of the reference cannot change such a decision, so a change
    here never fails a candidate that rhomax lets pass; it says what a failure would mean.

    Shape: [N, C] with C >= 2; any other has no decisions.
    """
    if y.ndim != 2 or y.shape[1] < 2:
        return 0
    rows = finite.all(axis=1)
    o_NC, y_NC = o[rows], y[rows]
    two_best = np.partition(y_NC, -2, axis=1)[:, -2:]
    decided = two_best[:, 1] - two_best[:, 0] > 2 * allowed_error
    changed = np.argmax(o_NC, axis=1) != np.argmax(y_NC, axis=1)
    return int((decided & changed).sum())
