"""What never passes, and what always does: the verdict's rules 1 to 4."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from tests.support.compared_outputs import (
    REFERENCES,
    SHAPES,
    Array,
    compare,
    compare_one,
    golden,
)

# --- what passes ---------------------------------------------------------------------------


@given(REFERENCES)
def test_the_reference_rounded_to_float32_passes(y: Array) -> None:
    assert compare_one(y.astype(np.float32), y)


@given(nps.arrays(np.float64, SHAPES, elements=st.floats(-1e300, 1e300)))
def test_rounding_passes_at_every_magnitude(y: Array) -> None:
    # Subnormal in float32, or Inf in float32: the model cannot do better.
    with np.errstate(over="ignore"):
        assert compare_one(y.astype(np.float32), y)


@given(REFERENCES, st.integers(0, 2**32 - 1))
def test_noise_of_the_floors_size_passes(y: Array, seed: int) -> None:
    floor = 1e-3 * max(float(np.abs(y).max()), 2.0**-40)
    noise = np.random.default_rng(seed).uniform(-floor, floor, y.shape)
    assert compare_one((y + noise).astype(np.float32), y, rms=floor, largest=floor)


# --- what never passes ---------------------------------------------------------------------


@given(REFERENCES, st.integers(0, 2**32 - 1))
def test_ten_times_the_noise_fails(y: Array, seed: int) -> None:
    floor = 1e-3 * max(float(np.abs(y).max()), 2.0**-40)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], y.shape)
    comparison = compare_one(
        (y + 10 * floor * signs).astype(np.float32), y, rms=floor, largest=floor
    )
    assert not comparison
    assert comparison.rho2 == pytest.approx(10, rel=1e-3)
    assert comparison.rhomax == pytest.approx(10, rel=1e-3)


@given(REFERENCES, st.data(), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_nan_or_inf_in_the_candidate_never_passes(y: Array, data: Any, value: float) -> None:
    o = y.astype(np.float32)
    o.flat[data.draw(st.integers(0, o.size - 1))] = value
    huge = {"rms": 1e300, "largest": 1e300}
    assert not compare_one(o, y, **huge)


@given(REFERENCES, st.data(), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_nan_or_inf_that_is_lost_never_passes(y: Array, data: Any, value: float) -> None:
    o = y.astype(np.float32)
    y.flat[data.draw(st.integers(0, o.size - 1))] = value
    assert not compare_one(o, y, rms=1e300, largest=1e300)


@given(REFERENCES, SHAPES)
def test_another_shape_never_passes(y: Array, shape: tuple[int, ...]) -> None:
    assume(shape != y.shape)
    assert not compare_one(np.zeros(shape, np.float32), y, rms=1e300, largest=1e300)


@given(nps.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4))
def test_a_shape_that_numpy_would_broadcast_never_passes(shapes: Any) -> None:
    wanted, got = shapes.input_shapes
    assume(wanted != got)
    comparison = compare_one(np.zeros(got, np.float32), np.zeros(wanted), rms=1.0, largest=1.0)
    assert not comparison
    assert f"has shape {list(got)}, expected {list(wanted)}" in comparison.all_reasons[0]


@pytest.mark.parametrize("shape", [(0,), (0, 10), (3, 0)])
def test_an_empty_output_never_passes(shape: tuple[int, ...]) -> None:
    comparison = compare_one(np.zeros(shape, np.float32), np.zeros(shape))
    assert comparison.all_reasons == (f"output 'y' is empty: its shape is {list(shape)}",)
    assert not comparison


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "bool", "object"])
def test_another_dtype_never_passes(dtype: str) -> None:
    comparison = compare_one(np.ones(3).astype(dtype), np.ones(3))
    assert comparison.all_reasons == (f"output 'y' has dtype {dtype}, expected float32",)


def test_what_is_not_a_tensor_never_passes() -> None:
    comparison = compare_one([1.0], np.ones(1))  # type: ignore[arg-type]
    assert comparison.all_reasons == ("output 'y' is a list, expected a tensor",)


def test_an_output_that_the_model_does_not_declare_never_passes() -> None:
    assert compare_one(np.ones(1, np.float32), np.ones(1), dtypes={}).all_reasons == (
        "output 'y' is not declared by the model",
    )


def test_a_missing_and_an_extra_output_never_pass() -> None:
    one = np.ones(1, np.float32)
    expected = golden({"y": np.ones(1), "z": np.ones(1)})
    missing = compare({"y": one}, expected)
    assert not missing and missing.reasons == ("outputs are missing: ['z'], got ['y']",)
    extra = compare({"y": one, "z": one, "w": one}, expected)
    assert not extra and "unexpected outputs: ['w']" in extra.reasons[0]
    assert compare({"z": one, "y": one}, expected)


def test_no_common_output_never_passes() -> None:
    comparison = compare({"a": np.ones(1, np.float32)}, golden({"y": np.ones(1)}))
    assert not comparison
    assert comparison.reasons == (
        "no output has a name that was expected: got ['a'], expected ['y']",
    )


def test_nothing_to_compare_never_passes() -> None:
    assert not compare({}, golden({}))
    assert not compare({"y": np.ones(1, np.float32)}, golden({}))
