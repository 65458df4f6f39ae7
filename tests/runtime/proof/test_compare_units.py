"""The verdict's numbers, rho2 and rhomax: their formula, their units and their limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from dlzoo.runtime.proof.compare import UNIT_ROUNDOFFS
from dlzoo.runtime.proof.difference import root_mean_square
from tests.support.compared_outputs import REFERENCES, SHAPES, Array, U, compare_one


@given(REFERENCES, st.integers(-30, 30), st.integers(0, 2**32 - 1))
def test_scaling_everything_changes_no_number(y: Array, power: int, seed: int) -> None:
    floor = 1e-3 * max(float(np.abs(y).max()), 2.0**-40)
    noise = 4 * floor * np.random.default_rng(seed).standard_normal(y.shape)
    o, scale = (y + noise).astype(np.float32), 2.0**power
    as_is = compare_one(o, y, rms=floor, largest=floor)
    scaled = compare_one(
        (o.astype(np.float64) * scale).astype(np.float32),
        y * scale,
        rms=floor * scale,
        largest=floor * scale,
    )
    assert bool(as_is) == bool(scaled)
    assert (as_is.rho2, as_is.rhomax) == (scaled.rho2, scaled.rhomax)


@given(REFERENCES, st.integers(0, 2**32 - 1))
def test_errors_up_and_down_weigh_the_same(y: Array, seed: int) -> None:
    floor = 1e-3 * max(float(np.abs(y).max()), 2.0**-40)
    o = (y + 4 * floor * np.random.default_rng(seed).standard_normal(y.shape)).astype(
        np.float32
    )
    negated = compare_one(-o, -y, rms=floor, largest=floor)
    as_is = compare_one(o, y, rms=floor, largest=floor)
    assert (as_is.rho2, as_is.rhomax) == (negated.rho2, negated.rhomax)
    mirrored = compare_one(
        2 * y - o.astype(np.float64), y, rms=floor, largest=floor, dtypes={"y": "float64"}
    )
    exact = compare_one(
        o.astype(np.float64), y, rms=floor, largest=floor, dtypes={"y": "float64"}
    )
    assert mirrored.rho2 == pytest.approx(exact.rho2, rel=1e-9)
    assert mirrored.rhomax == pytest.approx(exact.rhomax, rel=1e-9)


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_the_order_of_samples_does_not_matter(batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((batch, 5))
    o = (y + 1e-3 * rng.standard_normal(y.shape)).astype(np.float32)
    order = rng.permutation(batch)
    as_is = compare_one(o, y, rms=1e-3, largest=1e-3)
    shuffled = compare_one(o[order], y[order], rms=1e-3, largest=1e-3)
    assert as_is.rho2 == pytest.approx(shuffled.rho2) and as_is.rhomax == shuffled.rhomax


def test_the_numbers_are_those_of_the_formula() -> None:
    y = np.array([1.0, 2.0, 2.0])  # RMS sqrt(3), max 2
    o = y + np.array([3.0, 0.0, -4.0]) * 1e-3  # RMS 5e-3/sqrt(3), max 4e-3
    comparison = compare_one(o, y, rms=1e-3, largest=2e-3, dtypes={"y": "float64"})
    assert comparison.rho2 == pytest.approx(5 / np.sqrt(3))
    assert comparison.rhomax == pytest.approx(2)
    without = compare_one(o, y, dtypes={"y": "float64"})
    assert without.rho2 == pytest.approx(5e-3 / np.sqrt(3) / (U * np.sqrt(3)))
    assert without.rhomax == pytest.approx(4e-3 / (U * 2))


@pytest.mark.parametrize(("error", "passes"), [(2.99, True), (3.01, False)])
def test_rho2_passes_up_to_its_limit(error: float, passes: bool) -> None:
    y = np.zeros(4)
    comparison = compare_one(
        np.full(4, error), y, rms=1.0, largest=1.0, dtypes={"y": "float64"}
    )
    assert bool(comparison) is passes
    if not passes:
        assert comparison.all_reasons == ("output 'y' has rho2 3.01, the limit is 3",)


@pytest.mark.parametrize(("error", "passes"), [(5.99, True), (6.01, False)])
def test_rhomax_passes_up_to_its_limit(error: float, passes: bool) -> None:
    y = np.zeros(100)
    o = np.zeros(100)
    o[7] = error
    comparison = compare_one(o, y, rms=1.0, largest=1.0, dtypes={"y": "float64"})
    assert bool(comparison) is passes


def test_an_all_zero_reference_wants_zeros() -> None:
    y = np.zeros((2, 3))
    assert compare_one(np.zeros((2, 3), np.float32), y)
    assert not compare_one(np.full((2, 3), 1e-30, np.float32), y)
    assert not compare_one(np.full((2, 3), 1e-43, np.float32), y)
    in_float64 = {"dtypes": {"y": "float64"}, "unit_roundoff": UNIT_ROUNDOFFS["float64"]}
    assert compare_one(y, y, **in_float64)
    assert not compare_one(y + 1e-320, y, **in_float64)


def test_errors_beyond_the_range_of_a_square_are_measured() -> None:
    y = np.array([1e200, -1e200])
    huge = {"dtypes": {"y": "float64"}, "unit_roundoff": UNIT_ROUNDOFFS["float64"]}
    assert compare_one(y * (1 + 2e-16), y, **huge)
    far = compare_one(y * 1.001, y, **huge)
    assert not far and 1e12 < (far.rho2 or 0) < 1e14
    small = y * 1e-300 * 1e-100
    assert compare_one(small * (1 + 2e-16), small, **huge)
    near = compare_one(small * 1.001, small, **huge)
    assert not near and 1e12 < (near.rho2 or 0) < 1e14
    opposite = compare_one(np.array([-1.7e308]), np.array([1.7e308]), **huge)
    assert not opposite and opposite.rho2 == np.inf


def test_a_single_element_is_compared() -> None:
    assert compare_one(np.float32([2.0]), np.array([2.0]))
    assert not compare_one(np.float32([2.001]), np.array([2.0]))
    assert compare_one(np.array(2.0, np.float32), np.array(2.0))


@given(
    nps.arrays(np.float64, SHAPES, elements=st.floats(-1e150, 1e150, allow_subnormal=False))
)
def test_root_mean_square_is_that_of_the_formula(values: Array) -> None:
    with np.errstate(under="ignore"):
        expected = np.sqrt(np.mean(values**2))
    if expected > 1e-140:
        assert root_mean_square(values) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_integers_must_be_equal(dtype: str) -> None:
    y = np.array([0.0, 1.0, 1.0])
    assert compare_one(y.astype(dtype), y, dtypes={"y": dtype})
    wrong = compare_one(np.array([0, 1, 0]).astype(dtype), y, dtypes={"y": dtype})
    assert wrong.all_reasons == (
        f"output 'y' differs in 1 of 3 {dtype} values; all must be equal",
    )


@pytest.mark.parametrize("name", list(UNIT_ROUNDOFFS))
def test_unit_roundoffs_are_half_a_step_at_one(name: str) -> None:
    if name in ("float64", "float32", "float16"):
        assert UNIT_ROUNDOFFS[name] == np.finfo(name).eps / 2
    else:
        stored_bits = {"tf32": 10, "bfloat16": 7}[name]
        assert UNIT_ROUNDOFFS[name] == 2.0 ** -(stored_bits + 1)
