"""Means, spreads and bootstrap intervals against answers derived by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import DataError
from model.statistics import mean_sd, nested_weights, paired_bootstrap, sd_between


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_mean_and_sd_by_hand() -> None:
    assert mean_sd([1.0, 2.0, 3.0]) == (2.0, 1.0)


def test_sd_of_one_value_and_mean_of_none_are_undefined() -> None:
    assert mean_sd([0.5])[0] == 0.5
    assert math.isnan(mean_sd([0.5])[1])
    assert all(math.isnan(v) for v in mean_sd([]))


def test_an_undefined_value_is_not_dropped_in_silence() -> None:
    assert all(math.isnan(v) for v in mean_sd([0.5, math.nan, 0.7]))


def test_split_and_training_seed_are_told_apart() -> None:
    # Split 2 adds 2, training seed 2 adds 1: variances 2²/2 and 1²/2 in every group.
    between = sd_between([1.0, 3.0, 2.0, 4.0], [1, 2, 1, 2], [1, 1, 2, 2])
    assert between == pytest.approx((math.sqrt(2.0), math.sqrt(0.5)))


def test_groups_of_unequal_size_are_pooled_by_their_degrees_of_freedom() -> None:
    # Training seed 1: 0, 1, 2 (squares 2, freedom 2); seed 2: 0, 4 (squares 8, freedom 1).
    split, _ = sd_between([0.0, 1.0, 2.0, 0.0, 4.0], [1, 2, 3, 1, 2], [1, 1, 1, 2, 2])
    assert split == pytest.approx(math.sqrt(10.0 / 3.0))


def test_spread_over_a_seed_that_was_never_varied_is_undefined() -> None:
    split, train = sd_between([0.7, 0.9], [1, 2], [1, 1])
    assert split == pytest.approx(math.sqrt(0.02))
    assert math.isnan(train)


def test_nested_weights_give_seeds_then_sites_then_patients_their_share() -> None:
    weights = nested_weights([1, 1, 1, 2], ["x", "x", "y", "x"])
    assert weights.tolist() == [0.125, 0.125, 0.25, 0.5]
    assert nested_weights([], []).size == 0


def test_two_patients_give_the_interval_of_their_four_draws() -> None:
    # Means 0, ½, ½, 1 with equal chance; deviations from ½ grow by √2.
    mean, low, high = paired_bootstrap([0.0, 1.0], ["p", "q"], ["s", "s"], rng())
    assert mean == 0.5
    assert (low, high) == pytest.approx((0.5 - math.sqrt(0.5), 0.5 + math.sqrt(0.5)))


def test_many_patients_give_the_interval_of_normal_theory() -> None:
    values = np.random.default_rng(1).normal(0.02, 0.05, 400)
    mean, low, high = paired_bootstrap(values, list(range(400)), ["s"] * 400, rng())
    half = 1.96 * values.std(ddof=1) / 20.0
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.06 * half)


def test_differences_between_sites_are_no_spread() -> None:
    found = paired_bootstrap([0.1, 0.1, 0.5, 0.5], list("pqrs"), ["a", "a", "b", "b"], rng())
    assert found == pytest.approx((0.3, 0.3, 0.3))


def test_sites_weigh_alike_whatever_their_size() -> None:
    values, sites = [0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"]
    assert paired_bootstrap(values, list("pqrs"), sites, rng(), nested_weights(sites))[0] == pytest.approx(
        0.5
    )


def test_the_same_patients_under_more_seeds_are_not_more_patients() -> None:
    once = paired_bootstrap([0.0, 0.1, 0.4], list("pqr"), ["s"] * 3, rng())
    thrice = paired_bootstrap([0.0, 0.1, 0.4] * 3, list("pqr") * 3, ["s"] * 9, rng())
    assert thrice == pytest.approx(once)


def test_sites_with_one_patient_are_drawn_from_together() -> None:
    alone = paired_bootstrap([0.0, 1.0], ["p", "q"], ["a", "b"], rng())
    assert alone == pytest.approx(paired_bootstrap([0.0, 1.0], ["p", "q"], ["s", "s"], rng()))


def test_a_last_site_with_one_patient_joins_the_smallest_other() -> None:
    sites = ["a"] * 3 + ["b"] * 2 + ["c"]
    values = [0.0, 0.0, 0.0, 0.2, 0.2, 0.8]
    joined = paired_bootstrap(values, list("pqrstu"), ["a"] * 3 + ["b"] * 3, rng())
    assert paired_bootstrap(values, list("pqrstu"), sites, rng()) == pytest.approx(joined)


def test_nothing_and_one_patient_have_no_interval() -> None:
    assert all(math.isnan(v) for v in paired_bootstrap([], [], [], rng()))
    mean, low, high = paired_bootstrap([0.3], ["p"], ["s"], rng())
    assert mean == 0.3
    assert math.isnan(low) and math.isnan(high)


@pytest.mark.parametrize(
    ("values", "units", "strata", "weights"),
    [
        ([math.nan, 0.1], ["p", "q"], ["s", "s"], None),
        ([0.1, 0.1], ["p"], ["s", "s"], None),
        ([0.1, 0.1], ["p", "p"], ["s", "t"], None),
        ([0.1, 0.1], ["p", "q"], ["s", "s"], np.array([1.0, 0.0])),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    values: list[float], units: list[str], strata: list[str], weights: np.ndarray | None
) -> None:
    with pytest.raises(DataError):
        paired_bootstrap(values, units, strata, rng(), weights, 10)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.floats(-1, 1)), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_the_order_of_rows_is_irrelevant(rows: list[tuple[int, int, float]], shuffler: object) -> None:
    shuffled = list(rows)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    found = []
    for version in (rows, shuffled):
        sites = [s for s, _, _ in version]
        units, values = [f"{s}-{p}" for s, p, _ in version], [v for *_, v in version]
        found.append(paired_bootstrap(values, units, sites, rng(), nested_weights(sites), 200))
    assert found[0] == pytest.approx(found[1], nan_ok=True, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=10), st.floats(-1, 1))
def test_a_constant_added_moves_mean_and_interval_alike(values: list[float], constant: float) -> None:
    units, sites = list(range(len(values))), ["s"] * len(values)
    plain = np.array(paired_bootstrap(values, units, sites, rng(), None, 200))
    moved = paired_bootstrap(np.array(values) + constant, units, sites, rng(), None, 200)
    assert moved == pytest.approx(tuple(plain + constant), abs=1e-9)
