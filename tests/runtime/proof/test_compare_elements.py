"""Single elements that decide: NaN and Inf, changed decisions, and the worst element."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.compared_outputs import REFERENCES, Array, compare_one

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
