"""What never passes, and what always does: the verdict's rules 1 to 4."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from dlzoo.export.bundle import GoldenSet, NoiseFloor
from dlzoo.runtime.compare import UNIT_ROUNDOFFS, Comparison, compare_outputs
from dlzoo.runtime.difference import root_mean_square
from dlzoo.runtime.divergence import Divergence

Array = np.ndarray[Any, Any]
U = UNIT_ROUNDOFFS["float32"]
NAN_MAY_VANISH = Divergence(op="MaxPool", provider="cpu", reference="NaN", reason="measured")

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
        "rho2_limit": 3.0,
        "rhomax_limit": 6.0,
    }
    return compare_outputs(candidate, expected, **{**rules, **changes})


def compare_one(o: Array, y: Array, **changes: Any) -> Comparison:
    rms, largest = changes.pop("rms", 0.0), changes.pop("largest", 0.0)
    return compare({"y": o}, golden({"y": y}, rms, largest), **changes)


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
    assert not compare_one(o, y, **huge, divergences=[NAN_MAY_VANISH])


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
    assert not extra and "outputs that nobody expected: ['w']" in extra.reasons[0]
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


# --- units ---------------------------------------------------------------------------------


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


# --- NaN and Inf ---------------------------------------------------------------------------


def test_equal_masks_pass_and_the_rest_is_compared() -> None:
    y = np.array([1.0, np.nan, np.inf, -np.inf])
    assert compare_one(y.astype(np.float32), y)
    o = y.astype(np.float32)
    o[0] = 1.1
    assert not compare_one(o, y)


@pytest.mark.parametrize(
    ("o", "y", "said"),
    [
        (np.nan, 1.5, "got nan, expected 1.5"),
        (1.5, np.nan, "got 1.5, expected nan"),
        (np.inf, -np.inf, "got inf, expected -inf"),
        (np.nan, np.inf, "got nan, expected inf"),
    ],
)
def test_a_wrong_mask_says_where(o: float, y: float, said: str) -> None:
    comparison = compare_one(np.float32([[0, o]]), np.array([[0, y]]))
    assert comparison.all_reasons[0] == (
        "output 'y' has 1 of 2 elements that are finite, NaN or Inf where they should not be: "
        f"at [0, 1] {said}"
    )


def test_all_masked_passes_with_a_note_and_without_a_number() -> None:
    y = np.full(3, np.nan)
    comparison = compare_one(y.astype(np.float32), y)
    assert comparison and comparison.rho2 is None and comparison.rhomax is None
    assert "no finite element to compare" in comparison.notes[0]


def test_a_declared_divergence_lets_the_reference_differ_one_way_only() -> None:
    y = np.array([np.nan, np.nan, np.nan, np.inf, 1.0])
    swallowed = np.float32([2.0, np.inf, np.nan, np.inf, 1.0])
    assert not compare_one(swallowed, y)
    comparison = compare_one(swallowed, y, divergences=[NAN_MAY_VANISH])
    assert comparison and comparison.rho2 == 0
    assert "has 2 NaN elements of the reference that are something else" in comparison.notes[0]
    lost_inf = np.float32([np.nan, np.nan, np.nan, 3.0, 1.0])
    assert not compare_one(lost_inf, y, divergences=[NAN_MAY_VANISH])
    new_nan = np.float32([np.nan, np.nan, np.nan, np.inf, np.nan])
    assert not compare_one(new_nan, y, divergences=[NAN_MAY_VANISH])


# --- decisions -----------------------------------------------------------------------------


def test_a_top1_change_counts_where_the_margin_is_clear() -> None:
    y = np.array([[3.0, 1.0, 0.0], [3.0, 2.9, 0.0], [0.0, 0.0, 5.0]])
    o = y[:, [1, 0, 2]].astype(np.float32)  # changes the first two decisions
    comparison = compare_one(o, y, rms=0.02, largest=0.02)
    (difference,) = comparison.differences
    # Twice the allowed error of 6 * 0.02 is 0.24: the margin of the second sample is below it.
    assert difference.num_top1_changes == 1
    assert "changes the top class of 1 of 3 samples" in difference.reasons[-1]


def test_a_close_decision_may_change() -> None:
    y = np.array([[1.0, 1.0 + 1e-9, 0.0]])
    comparison = compare_one(np.float32([[1.0 + 2e-7, 1.0, 0.0]]), y, rms=1e-7, largest=1e-7)
    assert comparison and comparison.differences[0].num_top1_changes == 0


@given(REFERENCES, st.integers(0, 2**32 - 1))
def test_what_rhomax_lets_pass_changes_no_clear_decision(y: Array, seed: int) -> None:
    assume(y.ndim == 2)
    floor = 1e-3 * max(float(np.abs(y).max()), 2.0**-40)
    noise = np.random.default_rng(seed).uniform(-5.9 * floor, 5.9 * floor, y.shape)
    (difference,) = compare_one(
        y + noise, y, rms=1e300, largest=floor, dtypes={"y": "float64"}
    ).differences
    assert difference.num_top1_changes == 0


@pytest.mark.parametrize("name", list(UNIT_ROUNDOFFS))
def test_unit_roundoffs_are_half_a_step_at_one(name: str) -> None:
    if name in ("float64", "float32", "float16"):
        assert UNIT_ROUNDOFFS[name] == np.finfo(name).eps / 2
    else:
        stored_bits = {"tf32": 10, "bfloat16": 7}[name]
        assert UNIT_ROUNDOFFS[name] == 2.0 ** -(stored_bits + 1)


# --- the worst element ---------------------------------------------------------------------


def test_the_worst_element_is_the_one_with_the_largest_error() -> None:
    y = np.arange(6.0).reshape(2, 3)
    o = y.astype(np.float32)
    o[1, 0] += 2**-20
    o[0, 2] -= 2**-18
    worst = compare_one(o, y).worst["y"]
    assert worst.index == (0, 2)
    assert (worst.reference, worst.got, worst.error) == (2.0, 2.0 - 2**-18, -(2.0**-18))


def test_the_worst_element_lies_right_among_elements_that_are_not_finite() -> None:
    y = np.array([[np.nan, 1.0], [np.inf, 2.0]])
    o = y.astype(np.float32)
    o[1, 1] += 2**-22
    assert compare_one(o, y).worst["y"].index == (1, 1)


def test_a_wrong_nan_is_worse_than_any_error() -> None:
    y = np.array([[5.0, 1.0], [3.0, 2.0]])
    o = y.astype(np.float32)
    o[0, 0] += 1
    o[1, 0] = np.nan
    worst = compare_one(o, y).worst["y"]
    assert worst.index == (1, 0) and worst.reference == 3.0 and np.isnan(worst.got)


def test_a_wrong_integer_is_the_worst_element() -> None:
    y = np.array([1.0, 2.0, 3.0])
    got = np.array([1, 5, 3], np.int64)
    worst = compare_one(got, y, dtypes={"y": "int64"}).worst["y"]
    assert (worst.index, worst.reference, worst.got) == ((1,), 2.0, 5.0)


def test_what_cannot_be_compared_has_no_worst_element() -> None:
    y = np.arange(6.0).reshape(2, 3)
    assert compare_one(y.astype(np.float32)[:1], y).worst == {}
