"""Rating: weights by hand, and what a rater cannot do."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.rating import rated_weights

few = settings(deadline=None, max_examples=50)
gain = st.floats(-1, 1)


def test_weights_by_hand() -> None:
    gains = {
        "a": {"b": 0.02, "c": 0.04, "d": 0.03},  # g = .03
        "b": {"a": 0.00, "c": 0.02, "d": 0.01},  # g = .01
        "c": {"a": -0.30, "b": -0.11, "d": -0.10},  # g = −.11
    }
    rated = rated_weights(gains, strictness=20.0, margin=0.01)
    assert [rated[c].gain for c in "abc"] == [0.03, 0.01, -0.11]
    assert {r.reference for r in rated.values()} == {0.0}
    assert (rated["a"].weight, rated["b"].weight) == (1.0, 1.0)
    assert rated["c"].penalty == pytest.approx(0.10)
    assert rated["c"].weight == pytest.approx(math.exp(-2))


def test_a_site_cannot_rate_itself_up_or_down() -> None:
    others = {"b": -0.2, "c": -0.2, "d": -0.2}
    good = {"a": 0.05, "c": 0.05}
    plain = rated_weights({"a": others, "b": good}, 20.0, 0.01)
    boasting = rated_weights({"a": {**others, "a": 1.0}, "b": {**good, "b": -1.0}}, 20.0, 0.01)
    assert boasting == plain


def test_a_candidate_that_nobody_rated_keeps_its_weight() -> None:
    rated = rated_weights({"a": {}, "b": {"b": -0.9}, "c": {"a": -0.5}}, 20.0, 0.01)
    assert (rated["a"].gain, rated["a"].weight) == (None, 1.0)
    assert (rated["b"].gain, rated["b"].weight) == (None, 1.0)
    assert rated_weights({}, 20.0, 0.01) == {}


def test_when_all_updates_harm_only_those_below_the_typical_one_are_penalised() -> None:
    rated = rated_weights({"a": {"b": -0.05}, "b": {"a": -0.06}, "c": {"a": -0.20}}, 20.0, 0.01)
    assert {r.reference for r in rated.values()} == {-0.06}
    assert (rated["a"].weight, rated["b"].weight) == (1.0, 1.0)
    assert rated["c"].weight == pytest.approx(math.exp(-20 * 0.13))


def test_one_unlucky_rater_of_three_costs_nothing() -> None:
    rated = rated_weights({"a": {"b": -0.9, "c": 0.01, "d": 0.02}, "b": {"a": 0.0}}, 20.0, 0.01)
    assert rated["a"].weight == 1.0


def test_without_strictness_rating_changes_nothing() -> None:
    rated = rated_weights({"a": {"b": -1.0}, "b": {"a": 0.1}}, 0.0, 0.01)
    assert {r.weight for r in rated.values()} == {1.0}


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf])
def test_a_rating_that_is_no_number_is_no_evidence(nonsense: float) -> None:
    gains = {"bad": {"a": -0.5, "b": -0.5}, "good": {"a": 0.1, "b": 0.1}}
    spoiled = {c: {**raters, "x": nonsense, "y": nonsense} for c, raters in gains.items()}
    assert rated_weights(spoiled, 20.0, 0.01) == rated_weights(gains, 20.0, 0.01)
    assert rated_weights({"bad": {"x": nonsense}}, 20.0, 0.01)["bad"].gain is None


@few
@given(
    gains=st.dictionaries(
        st.text(max_size=3), st.dictionaries(st.text(max_size=3), gain, max_size=5), max_size=6
    )
)
def test_weights_lie_above_zero_and_at_most_at_one(gains: dict[str, dict[str, float]]) -> None:
    rated = rated_weights(gains, 20.0, 0.01)
    assert set(rated) == set(gains)
    assert all(0 < r.weight <= 1 and r.penalty >= 0 and r.reference <= 0 for r in rated.values())


@few
@given(typical=st.lists(gain, min_size=2, max_size=6, unique=True))
def test_a_higher_gain_never_weighs_less(typical: list[float]) -> None:
    rated = rated_weights({str(k): {"rater": g} for k, g in enumerate(typical)}, 20.0, 0.01)
    by_gain = sorted(rated.values(), key=lambda r: r.gain or 0.0)
    assert all(low.weight <= high.weight for low, high in pairwise(by_gain))


@few
@given(typical=st.lists(gain, min_size=1, max_size=6))
def test_the_median_site_or_better_is_never_penalised(typical: list[float]) -> None:
    rated = rated_weights({str(k): {"rater": g} for k, g in enumerate(typical)}, 20.0, 0.01)
    assert sum(r.weight == 1.0 for r in rated.values()) >= len(typical) / 2
