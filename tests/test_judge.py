"""The judge: which fraction of a step is published."""

from __future__ import annotations

import math

import pytest

from model.judge import FRACTIONS, accepted_fraction


@pytest.mark.parametrize(
    ("whole", "half", "quarter", "accepted"),
    [
        (0.02, 0.01, 0.00, 1.0),
        (-0.005, 0.01, 0.01, 1.0),  # exactly the tolerance
        (-0.006, -0.005, 0.01, 0.5),
        (-0.10, -0.05, -0.001, 0.25),
        (-0.10, -0.05, -0.02, 0.0),
    ],
)
def test_the_largest_fraction_that_the_median_site_tolerates(
    whole: float, half: float, quarter: float, accepted: float
) -> None:
    gains = {1.0: {"a": whole}, 0.5: {"a": half}, 0.25: {"a": quarter}}
    assert accepted_fraction(gains, tolerance=0.005) == accepted


def _always(votes: dict[str, float]) -> dict[float, dict[str, float]]:
    """The same votes for every fraction."""
    return dict.fromkeys(FRACTIONS, votes)


def test_the_median_site_decides_and_not_the_mean() -> None:
    split = _always({"a": 0.01, "b": 0.01, "c": -0.9})
    assert accepted_fraction(split, 0.005) == 1.0
    outvoted = _always({"a": 0.9, "b": -0.02, "c": -0.02})
    assert accepted_fraction(outvoted, 0.005) == 0.0


def test_of_two_judges_the_one_that_is_harmed_decides() -> None:
    assert accepted_fraction(_always({"a": -0.3, "b": 1.0}), 0.005) == 0.0
    assert accepted_fraction(_always({"a": 0.0, "b": 0.02}), 0.005) == 1.0


def test_a_step_that_nobody_judged_is_not_published() -> None:
    assert accepted_fraction({}, 0.005) == 0.0
    assert accepted_fraction(_always({}), 0.005) == 0.0


def test_a_fraction_that_nobody_judged_is_passed_over() -> None:
    assert accepted_fraction({1.0: {}, 0.5: {"a": 0.1}}, 0.005) == 0.5


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf])
def test_a_vote_that_is_no_number_is_no_vote(nonsense: float) -> None:
    harmful = _always({"a": -0.5, "x": nonsense, "y": nonsense})
    welcome = _always({"a": 0.5, "x": nonsense, "y": nonsense})
    assert accepted_fraction(harmful, 0.005) == 0.0
    assert accepted_fraction(welcome, 0.005) == 1.0
    assert accepted_fraction(_always({"x": nonsense}), 0.005) == 0.0
