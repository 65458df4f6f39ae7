"""References drawn at random, and outputs compared with them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from dlzoo.runtime.bundle.golden_set import GoldenSet, NoiseFloor
from dlzoo.runtime.proof.compare import UNIT_ROUNDOFFS, Comparison, compare_outputs
from dlzoo.runtime.proof.limits import DEFAULT_LIMITS

Array = np.ndarray[Any, Any]
U = UNIT_ROUNDOFFS["float32"]

SHAPES = nps.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6)
#: Well inside float32's range, so that sums and scalings by powers of two stay there.
VALUES = st.floats(-(2.0**60), 2.0**60, allow_subnormal=False).filter(
    lambda v: v == 0 or abs(v) > 2.0**-60
)
REFERENCES = nps.arrays(np.float64, SHAPES, elements=VALUES)


def golden(
    reference: Mapping[str, Array], rms: float = 0.0, largest: float = 0.0
) -> GoldenSet:
    return GoldenSet(
        name="test_data_set_0",
        kind="normal x1",
        inputs={},
        reference=dict(reference),
        noise={name: NoiseFloor(rms, largest) for name in reference},
    )


def compare(candidate: Mapping[str, Any], expected: GoldenSet, **changes: Any) -> Comparison:
    rules: dict[str, Any] = {
        "dtypes": dict.fromkeys(expected.reference, "float32"),
        "unit_roundoff": U,
        "limits": DEFAULT_LIMITS,
    }
    return compare_outputs(candidate, expected, **{**rules, **changes})


def compare_one(o: Array, y: Array, **changes: Any) -> Comparison:
    rms, largest = changes.pop("rms", 0.0), changes.pop("largest", 0.0)
    return compare({"y": o}, golden({"y": y}, rms, largest), **changes)
