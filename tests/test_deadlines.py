"""Deadlines: learned from what a site took before, from the others for a newcomer, and always bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.deadlines import FEWEST_S, LOOK_BACK, SLACK, deadline_s

MOST_S = 3600.0
SHARE = {"a": 100.0, "b": 100.0, "c": 300.0}


def test_a_site_gets_a_multiple_of_its_slowest_recent_round() -> None:
    assert deadline_s([50.0, 90.0, 70.0], {}, SHARE, "a", MOST_S) == SLACK * 90


def test_rounds_long_ago_do_not_count() -> None:
    recent = [40.0] * LOOK_BACK
    assert deadline_s([900.0, *recent], {}, SHARE, "a", MOST_S) == SLACK * 40


def test_a_newcomer_gets_the_others_time_and_more_if_it_has_more_data() -> None:
    others = {"a": [100.0], "b": [60.0]}
    assert deadline_s([], others, SHARE, "c", MOST_S) == SLACK * 80 * 3
    assert deadline_s([], {"c": [90.0]}, SHARE, "a", MOST_S) == SLACK * 90


def test_where_nothing_is_known_the_bound_is_the_deadline() -> None:
    assert deadline_s([], {"b": []}, SHARE, "a", MOST_S) == MOST_S


@given(st.lists(st.floats(0, 1e6), max_size=8), st.lists(st.floats(0, 1e6), max_size=8))
def test_every_deadline_is_bounded(own: list[float], other: list[float]) -> None:
    assert FEWEST_S <= deadline_s(own, {"b": other}, SHARE, "a", MOST_S) <= MOST_S
