"""What is taken for raw counts: whole numbers, and what is whole but for rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stbench.slides.counts import HIGHEST, count_fault, distance_to_whole

COUNTS = arrays.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 50_000))


@given(COUNTS)
def test_a_logarithm_and_back_in_32_bits_is_rounding(counts: np.ndarray) -> None:
    values = np.expm1(np.log1p(counts.astype(np.float32)))
    assert count_fault(values) is None
    np.testing.assert_array_equal(np.rint(values), counts)
    assert distance_to_whole(values) <= 0.06


@given(COUNTS, st.floats(0.11, 0.5))
def test_what_is_not_whole_is_shown_with_the_digits_that_say_so(counts: np.ndarray, off: float) -> None:
    values = counts + off
    fault = count_fault(values)
    assert fault is not None
    shown = float(fault.split("for example ")[1].split(")")[0])
    assert shown != round(shown)
    assert shown in values


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_value_that_six_digits_would_round_is_printed_in_full(kind: type) -> None:
    assert "for example 1000000.5)" in str(count_fault(np.array([3, 1000000.5], dtype=kind)))
    assert "for example 1.01)" in str(count_fault(np.array([1.01, 2], dtype=kind)))


def test_small_shares_are_not_taken_for_zeros() -> None:
    assert "near zero, but not zero (for example 0.0004)" in str(count_fault(np.array([0.0004, 0.0, 0.0001])))
    assert count_fault(np.array([0.0004, 0.0, 1.0001])) is None


def test_negative_and_enormous_values_are_printed_in_full() -> None:
    assert "the smallest is -1234567)" in str(count_fault(np.array([-1234567, 3])))
    assert "a count of 3000000000," in str(count_fault(np.array([3_000_000_000])))
    assert count_fault(np.array([HIGHEST])) is None


def test_whole_numbers_have_no_distance_whatever_their_type() -> None:
    for values in ([1, 2], [True], [1.0, 0.0], []):
        assert distance_to_whole(np.array(values)) == 0.0
