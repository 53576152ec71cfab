"""Who rates whom: as many for everyone, nobody itself, and no more than a few each."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.assign import assign_raters
from model.seeds import derive_generator

few = settings(deadline=None, max_examples=60)
sites = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=40, unique=True)
raters = st.integers(1, 12)
seeds = st.integers(0, 2**31 - 1)


@few
@given(sites=sites, k=raters, seed=seeds)
def test_everyone_rates_and_is_rated_equally_often_and_nobody_by_itself(
    sites: list[str], k: int, seed: int
) -> None:
    assigned = assign_raters(sites, k, derive_generator(seed))
    wanted = min(k, len(sites) - 1)
    assert set(assigned) == set(sites)
    assert all(len(set(candidates)) == len(candidates) == wanted for candidates in assigned.values())
    assert all(rater not in candidates for rater, candidates in assigned.items())
    counts = Counter(c for candidates in assigned.values() for c in candidates)
    assert counts == (dict.fromkeys(sites, wanted) if wanted else {})


@few
@given(n=st.integers(13, 60), k=raters, seed=seeds)
def test_the_work_grows_linearly_with_the_sites(n: int, k: int, seed: int) -> None:
    """Beyond k + 1 sites, one more site costs k more ratings, however many there are."""
    total = sum(map(len, assign_raters([f"s{i}" for i in range(n)], k, derive_generator(seed)).values()))
    assert total == k * n


@few
@given(sites=sites, k=raters, seed=seeds, data=st.data())
def test_the_seed_alone_decides_and_not_the_order_of_the_sites(
    sites: list[str], k: int, seed: int, data: st.DataObject
) -> None:
    turned = data.draw(st.permutations(sites))
    assert assign_raters(turned, k, derive_generator(seed)) == assign_raters(sites, k, derive_generator(seed))


def test_another_seed_gives_other_raters() -> None:
    sites = [f"s{i}" for i in range(20)]
    drawn = [assign_raters(sites, 3, derive_generator(seed)) for seed in range(4)]
    assert all(a != b for i, a in enumerate(drawn) for b in drawn[:i])


def test_with_raters_enough_everyone_rates_everyone_else() -> None:
    assigned = assign_raters(["c", "a", "b"], 6, derive_generator(1))
    assert assigned == {"a": ("b", "c"), "b": ("a", "c"), "c": ("a", "b")}


@pytest.mark.parametrize("sites", [[], ["alone"]])
def test_who_is_alone_rates_nobody(sites: list[str]) -> None:
    assert assign_raters(sites, 6, derive_generator(1)) == dict.fromkeys(sites, ())
