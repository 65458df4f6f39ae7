"""Sizes of the inputs at which float32 itself says nothing about an output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.proof.limits import VACUOUS_SHARE


def silent_sizes(
    golden_sets: Sequence[GoldenSet], dtypes: Mapping[str, str]
) -> tuple[str, ...]:
    """Find outputs that no golden set of one size can judge, a reason each.

    At every size of the inputs one set must have a noise floor of at most ``VACUOUS_SHARE`` of the
    signal: where float32's own error is larger, no candidate can be wrong. Golden data of bundles
    of before 0.2 do not know their signal.

    Args:
        golden_sets: of the proof.
        dtypes: output name -> the numpy dtype name that the model declares.
    """
    reasons = []
    for golden, output, share in _silent_outputs(golden_sets, dtypes):
        sizes = (array.shape for array in golden.inputs.values())
        shown = ", ".join("x".join(map(str, size)) for size in sizes)
        reasons.append(
            f"at inputs of size {shown} float32's own error is {_percent(share)} of output "
            f"{output!r}, so no error of the model could show there"
        )
    return tuple(reasons)


def _percent(share: float) -> str:
    return "all" if math.isinf(share) else f"{share:.1%}"


def sets_of_silent_sizes(
    golden_sets: Sequence[GoldenSet], dtypes: Mapping[str, str]
) -> list[GoldenSet]:
    """One golden set of each size at which an output cannot be judged.

    Args:
        golden_sets: of the proof.
        dtypes: output name -> the numpy dtype name that the model declares.
    """
    found = {golden.name: golden for golden, _, _ in _silent_outputs(golden_sets, dtypes)}
    return list(found.values())


def _silent_outputs(
    golden_sets: Sequence[GoldenSet], dtypes: Mapping[str, str]
) -> Iterator[tuple[GoldenSet, str, float]]:
    """The first set of a size, an output, and float32's smallest error there."""
    by_size: dict[tuple[tuple[int, ...], ...], list[GoldenSet]] = {}
    for golden in golden_sets:
        if golden.is_finite:
            sizes = tuple(array.shape for array in golden.inputs.values())
            by_size.setdefault(sizes, []).append(golden)
    for sets in by_size.values():
        for output in sets[0].reference:
            if not dtypes.get(output, "").startswith(("float", "bfloat")):
                continue
            shares = [golden.noise[output].share_of_signal for golden in sets]
            known = [share for share in shares if share is not None]
            if len(known) == len(shares) and min(known) > VACUOUS_SHARE:
                yield sets[0], output, min(known)
