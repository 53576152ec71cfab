"""Median, trimmed mean and Krum, against their definitions; and what one arbitrary update can do to each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.errors import ConfigError, RoundError, ShapeError
from model.methods.robust import Dense, coordinate_median, krum, krum_update, trimmed_mean

few = settings(deadline=None, max_examples=20)
RULES: dict[str, Callable[[Dense], dict[str, Tensor]]] = {
    "median": coordinate_median,
    "trimmed": lambda updates: trimmed_mean(updates, 1),
    "krum": lambda updates: krum_update(updates, 1),
}
every = pytest.mark.parametrize("rule", RULES)


def _scalars(**values: float) -> dict[str, dict[str, Tensor]]:
    return {site: {"w": torch.tensor([value])} for site, value in values.items()}


def _updates(seed: int, n: int = 5) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"s{k}": {
            "conv": torch.randn(3, 2, 1, 1, generator=generator),
            "bias": torch.randn(4, generator=generator),
        }
        for k in range(n)
    }


def _flat(update: Mapping[str, Tensor]) -> list[float]:
    return [float(x) for name in sorted(update) for x in update[name].flatten()]


@every
def test_equal_sites_give_that_site(rule: str) -> None:
    site = _updates(1)["s0"]
    merged = RULES[rule](dict.fromkeys("abcde", site))
    assert list(merged) == ["bias", "conv"]
    for name, value in merged.items():
        torch.testing.assert_close(value, site[name].double())


@every
def test_the_order_of_the_sites_does_not_change_one_bit(rule: str) -> None:
    updates = _updates(2)
    there, back = RULES[rule](updates), RULES[rule](dict(reversed(updates.items())))
    assert all(torch.equal(there[name], back[name]) for name in there)


@every
@few
@given(seed=st.integers(0, 10**6), factor=st.sampled_from([1e3, -1e6, 1e30, -1e38]))
def test_one_arbitrarily_large_update_moves_nothing_beyond_the_honest_sites(
    rule: str, seed: int, factor: float
) -> None:
    updates = _updates(seed)
    honest = [updates[f"s{k}"] for k in range(4)]
    updates["s4"] = {name: torch.full_like(value, factor) for name, value in updates["s4"].items()}
    for name, value in RULES[rule](updates).items():
        stacked = torch.stack([update[name].double() for update in honest])
        assert bool((value >= stacked.amin(0) - 1e-12).all())
        assert bool((value <= stacked.amax(0) + 1e-12).all())


def test_the_plain_mean_is_carried_away_by_one_large_update() -> None:
    updates = _scalars(a=1, b=2, c=3, d=4, e=1e6)
    assert float(trimmed_mean(updates, 0)["w"]) == 200002
    assert float(trimmed_mean(updates, 1)["w"]) == 3
    assert float(coordinate_median(updates)["w"]) == 3


@few
@given(seed=st.integers(0, 10**6), n=st.integers(1, 8))
def test_the_median_is_that_of_every_coordinate(seed: int, n: int) -> None:
    updates = _updates(seed, n)
    columns = zip(*(_flat(update) for update in updates.values()), strict=True)
    assert _flat(coordinate_median(updates)) == pytest.approx([statistics.median(c) for c in columns])


@few
@given(seed=st.integers(0, 10**6), trim=st.integers(0, 3))
def test_the_trimmed_mean_drops_the_ends_of_every_coordinate(seed: int, trim: int) -> None:
    updates = _updates(seed, 7)
    columns = zip(*(_flat(update) for update in updates.values()), strict=True)
    expected = [statistics.fmean(sorted(c)[trim : 7 - trim]) for c in columns]
    assert _flat(trimmed_mean(updates, trim)) == pytest.approx(expected)


def test_trimming_leaves_at_least_one_site() -> None:
    assert float(trimmed_mean(_scalars(a=1, b=2, c=30), 1)["w"]) == 2
    with pytest.raises(RoundError, match="needs 5 sites, 4 sent"):
        trimmed_mean(_scalars(a=1, b=2, c=3, d=4), 2)
    with pytest.raises(ConfigError):
        trimmed_mean(_scalars(a=1), -1)


def test_krum_by_hand() -> None:
    # n − f − 2 = 2 nearest: a 1+9, b 1+4, c 4+9, d 6²+7², e far
    assert krum(_scalars(a=0, b=1, c=3, d=9, e=50), 1) == "b"


@few
@given(seed=st.integers(0, 10**6), n=st.integers(5, 8), faulty=st.integers(0, 1))
def test_krum_takes_the_least_sum_of_squared_distances_to_the_nearest(seed: int, n: int, faulty: int) -> None:
    updates = _updates(seed, n)
    scores = {}
    for site, own in updates.items():
        distances = sorted(
            sum((x - y) ** 2 for x, y in zip(_flat(own), _flat(other), strict=True))
            for name, other in updates.items()
            if name != site
        )
        scores[site] = sum(distances[: n - faulty - 2])
    chosen = krum(updates, faulty)
    assert scores[chosen] == pytest.approx(min(scores.values()))
    assert _flat(krum_update(updates, faulty)) == _flat(updates[chosen])


def test_equal_scores_go_to_the_first_name() -> None:
    assert krum(_scalars(e=1, d=1, c=1, b=1, a=1), 1) == "a"


def test_krum_says_how_many_sites_it_needs() -> None:
    krum(_updates(1, 5), 1)
    with pytest.raises(RoundError, match="2 faulty sites needs 7 sites, 5 sent"):
        krum(_updates(1, 5), 2)
    with pytest.raises(RoundError, match="needs 3 sites, 2 sent"):
        krum_update(_updates(1, 2), 0)
    with pytest.raises(ConfigError):
        krum(_updates(1, 5), -1)


@every
def test_updates_that_cannot_be_compared_are_refused(rule: str) -> None:
    with pytest.raises(RoundError):
        RULES[rule]({})
    lacking = _updates(1)
    del lacking["s3"]["bias"]
    broken, other = _updates(1), _updates(1)
    broken["s2"]["bias"] = torch.tensor([1.0, float("nan"), 0.0, 0.0])
    other["s2"]["bias"] = torch.zeros(5)
    for updates in (lacking, broken, other):
        with pytest.raises(ShapeError):
            RULES[rule](updates)
