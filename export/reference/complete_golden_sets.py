"""Golden sets of drawn inputs, and further ones where those say nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dlzoo.export.reference.golden_inputs import ordinary_inputs
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.proof.silent_sizes import sets_of_silent_sizes

Array = npt.NDArray[Any]


class ComputesGoldenSet(Protocol):
    """Computes the network's answers to inputs of a kind, as the set of that number."""

    def __call__(self, number: int, kind: str, inputs: dict[str, Array], /) -> GoldenSet: ...


def complete_golden_sets(
    drawn: Iterable[tuple[str, dict[str, Array]]],
    compute: ComputesGoldenSet,
    *,
    dtypes: Mapping[str, str],
    seed: int,
) -> list[GoldenSet]:
    """Compute a golden set for each of the drawn inputs, and for further ones where needed.

    An image of zeros has no answer in float32 where a normalization follows that divides by the
    image's own deviation: each layer enlarges its roundoff up to 316 times, by ``1 / sqrt(eps)``.
    At a size for which that is the only set, nothing would be proved; one of ordinary inputs is
    added there. The set stays, for NaN and infinities must not come out of it either.

    Args:
        drawn: inputs by kind.
        compute: called with a number, the kind and the inputs.
        dtypes: output name -> the numpy dtype name that the model declares.
        seed: draws further inputs.
    """
    sets = [compute(number, kind, inputs) for number, (kind, inputs) in enumerate(drawn)]
    for silent in sets_of_silent_sizes(sets, dtypes):
        kind, inputs = ordinary_inputs(silent.inputs, seed=seed)
        if any(not np.array_equal(x, silent.inputs[name]) for name, x in inputs.items()):
            sets.append(compute(len(sets), kind, inputs))
    return sets
