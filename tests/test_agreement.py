"""Bias, limits of agreement and ICC against the papers' own worked examples, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from model.agreement import agreement, icc_2_1
from model.errors import DataError

WRIGHT = (494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427)
MINI = (512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451)
"""Peak expiratory flow, l/min, by both meters: Bland and Altman, Lancet 1986, table 1, first readings."""
RATINGS = np.array(
    [(9, 2, 5, 8), (6, 1, 3, 2), (8, 4, 6, 8), (7, 1, 2, 6), (10, 5, 6, 9), (6, 2, 4, 7)], float
)
"""Six targets by four judges: Shrout and Fleiss 1979, table 2."""


def test_bias_and_limits_are_those_of_bland_and_altman() -> None:
    found = agreement(WRIGHT, MINI)
    assert found.n == 17
    assert found.bias.value == pytest.approx(-2.1, abs=0.05)
    assert found.sd == pytest.approx(38.8, abs=0.05)
    assert (found.bias.low, found.bias.high) == pytest.approx((-22.0, 17.8), abs=0.1)
    assert (found.lower.value, found.upper.value) == pytest.approx(
        (-2.118 - 1.96 * 38.765, -2.118 + 1.96 * 38.765), abs=0.01
    )


def test_intervals_of_the_limits_are_near_those_of_the_first_paper() -> None:
    """−114.3 to −45.1 and 40.9 to 110.1 there, with 2 s for 1.96 s and 3 s²/n for the variance."""
    found = agreement(WRIGHT, MINI)
    assert (found.lower.low, found.lower.high) == pytest.approx((-114.3, -45.1), abs=3)
    assert (found.upper.low, found.upper.high) == pytest.approx((40.9, 110.1), abs=3)


def test_intervals_of_the_limits_hold_what_they_promise() -> None:
    """Of 500 drawn samples of 20, the interval misses the true upper limit in about 5 %."""
    rng = np.random.default_rng(1)
    samples = rng.normal(3.0, 5.0, size=(500, 20))
    held = [
        found.upper.low <= 3.0 + 1.96 * 5.0 <= found.upper.high
        for found in (agreement(x, np.zeros(20)) for x in samples)
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)


def test_icc_is_that_of_shrout_and_fleiss() -> None:
    found = icc_2_1(RATINGS)
    assert found.value == pytest.approx(0.29, abs=0.005)
    assert (found.low, found.high) == pytest.approx((0.019, 0.761), abs=0.0005)  # as R's psych::ICC prints it


def test_icc_sees_a_shift_that_a_correlation_does_not() -> None:
    truth = np.arange(10.0)
    assert icc_2_1(np.column_stack([truth, truth])).value == 1
    shifted = icc_2_1(np.column_stack([truth + 5, truth]))
    assert stats.pearsonr(truth + 5, truth).statistic == pytest.approx(1)
    n, k = 10, 2
    between, judges = k * np.var(truth, ddof=1), n * 12.5 / 1  # by hand: no residual; judges differ by 5
    assert shifted.value == pytest.approx(between / (between + k * judges / n))


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=20), st.floats(-50, 50))
def test_a_constant_error_is_all_bias(values: list[float], error: float) -> None:
    truth = np.asarray(values)
    found = agreement(truth + error, truth)
    assert found.bias.value == pytest.approx(error, abs=1e-9)
    assert found.mae == pytest.approx(abs(error), abs=1e-9)
    assert found.upper.value - found.lower.value == pytest.approx(0, abs=1e-9)


def test_exchanging_both_turns_the_signs_and_keeps_the_icc() -> None:
    there, back = agreement(WRIGHT, MINI), agreement(MINI, WRIGHT)
    assert back.bias.value == pytest.approx(-there.bias.value)
    assert back.lower.value == pytest.approx(-there.upper.value)
    assert back.icc.value == pytest.approx(there.icc.value)


def test_too_few_pairs_are_undefined_and_not_zero() -> None:
    none, one = agreement([], []), agreement([3.0], [1.0])
    assert none.n == 0
    assert math.isnan(none.bias.value)
    assert (one.bias.value, one.mae) == (2, 2)
    assert math.isnan(one.sd)
    assert math.isnan(one.icc.value)


def test_undefined_or_unpaired_values_are_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        agreement([1.0, math.nan], [1.0, 2.0])
    with pytest.raises(DataError, match="2 measurements of 1"):
        agreement([1.0, 2.0], [1.0])
