"""The merge: shares, clipping, the step and the running sum."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.average import average_weights
from model.clip import clip_updates
from model.errors import RoundError
from model.factors import Adapter, Factors, adapter_norm, fold, sum_adapters
from model.merge import (
    Form,
    Volume,
    clip_factors,
    merge_shares,
    merge_step,
    update_norms,
    volume_weights,
)
from model.package import pack_adapter

few = settings(deadline=None, max_examples=25)
SHAPES = {"conv": (6, 9), "head": (4, 12), "bias": (4, 1)}


def _adapter(seed: int, rank: int = 2) -> dict[str, Factors]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: Factors(
            torch.randn(out, rank, generator=generator, dtype=torch.float64),
            torch.randn(rank, inner, generator=generator, dtype=torch.float64),
        )
        for name, (out, inner) in SHAPES.items()
    }


def _distance(a: Adapter, b: Adapter) -> float:
    dense = {name: torch.zeros(SHAPES[name], dtype=torch.float64) for name in SHAPES}
    for sign, adapter in ((1.0, a), (-1.0, b)):
        for name, factors in adapter.items():
            dense[name] += sign * factors.product().double()
    return math.sqrt(sum(float(d.square().sum()) for d in dense.values()))


@pytest.mark.parametrize("form", ["paper", "renormalised"])
@pytest.mark.parametrize("volume", ["linear", "sqrt", "uniform"])
def test_a_merge_of_one_adapter_is_that_adapter(form: Form, volume: Volume) -> None:
    update = _adapter(1)
    shares = merge_shares({"a": 1.0}, volume_weights({"a": 37}, volume), form)
    assert shares == {"a": 1.0}
    assert _distance(merge_step({"a": update}, shares), update) < 1e-12


@few
@given(seed=st.integers(0, 10**6), ranks=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_the_step_is_the_weighted_sum_of_the_dense_updates(seed: int, ranks: list[int]) -> None:
    updates = {f"s{k}": _adapter(seed + k, rank) for k, rank in enumerate(ranks)}
    coefficients = {f"s{k}": 0.1 + 0.3 * k for k in range(len(ranks))}
    step = merge_step(updates, coefficients)
    exact = sum_adapters((coefficients[s], updates[s]) for s in updates)
    assert _distance(step, exact) < 1e-10
    assert all(f.rank <= min(SHAPES[name]) for name, f in step.items())


@few
@given(order=st.permutations(["a", "b", "c", "d"]))
def test_the_order_of_the_sites_does_not_change_one_bit_of_the_step(order: list[str]) -> None:
    updates = {site: _adapter(ord(site)) for site in "abcd"}
    weights = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}
    step = merge_step(updates, weights)
    again = merge_step({s: updates[s] for s in order}, {s: weights[s] for s in reversed(order)})
    assert pack_adapter(step, "fp32") == pack_adapter(again, "fp32")


def test_equal_sites_give_fedavg_of_their_dense_weights() -> None:
    base = {name: torch.ones(shape) for name, shape in SHAPES.items()}
    updates = {site: _adapter(k) for k, site in enumerate("abc")}
    shares = merge_shares(dict.fromkeys("abc", 1.0), dict.fromkeys("abc", 20.0), "renormalised")
    merged = fold(base, merge_step(updates, shares))
    fedavg = average_weights({s: fold(base, u) for s, u in updates.items()}, dict.fromkeys("abc", 20.0))
    for name in base:
        torch.testing.assert_close(merged[name], fedavg[name], rtol=0, atol=1e-6)


def test_sites_of_unequal_volume_give_fedavg_with_those_volumes() -> None:
    base = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    volumes = volume_weights({"a": 30, "b": 10}, "linear")
    updates = {"a": _adapter(1), "b": _adapter(2)}
    merged = fold(base, merge_step(updates, merge_shares(dict.fromkeys("ab", 1.0), volumes, "paper")))
    fedavg = average_weights({s: fold(base, u) for s, u in updates.items()}, volumes)
    for name in base:
        torch.testing.assert_close(merged[name], fedavg[name], rtol=0, atol=1e-6)


def test_averaging_the_factors_is_not_the_product_merge() -> None:
    a, b = _adapter(1), _adapter(2)
    step = merge_step({"a": a, "b": b}, {"a": 0.5, "b": 0.5})
    separate = {name: Factors((a[name].B + b[name].B) / 2, (a[name].A + b[name].A) / 2) for name in a}
    assert _distance(step, separate) > 0.3 * adapter_norm(step)


def test_a_penalty_shortens_the_step_of_the_paper_and_not_the_renormalised_one() -> None:
    weights, volumes = {"good": 1.0, "bad": 0.5}, {"good": 10.0, "bad": 30.0}
    assert merge_shares(weights, volumes, "paper") == {"good": 0.25, "bad": 0.375}
    assert merge_shares(weights, volumes, "renormalised") == {"good": 0.4, "bad": 0.6}


@few
@given(
    sites=st.lists(st.tuples(st.floats(0.01, 1), st.floats(1, 1000)), min_size=1, max_size=6),
    form=st.sampled_from(["paper", "renormalised"]),
)
def test_shares_are_positive_and_never_add_up_to_more_than_one(
    sites: list[tuple[float, float]], form: Form
) -> None:
    weights = {str(k): w for k, (w, _) in enumerate(sites)}
    shares = merge_shares(weights, {str(k): v for k, (_, v) in enumerate(sites)}, form)
    assert all(share > 0 for share in shares.values())
    total = sum(shares.values())
    assert total == pytest.approx(1.0) if form == "renormalised" else total <= 1 + 1e-12


def test_without_penalties_both_forms_are_the_same() -> None:
    volumes = {"a": 3.0, "b": 5.0}
    weights = dict.fromkeys(volumes, 1.0)
    assert merge_shares(weights, volumes, "paper") == merge_shares(weights, volumes, "renormalised")


def test_nothing_to_merge_is_refused() -> None:
    with pytest.raises(RoundError):
        merge_shares({}, {}, "renormalised")
    with pytest.raises(RoundError):
        merge_shares({"a": 0.0}, {"a": 5.0}, "renormalised")


@pytest.mark.parametrize(("volume", "expected"), [("linear", [16, 9]), ("sqrt", [4, 3]), ("uniform", [1, 1])])
def test_volume_weights_by_hand(volume: Volume, expected: list[float]) -> None:
    assert list(volume_weights({"a": 16, "b": 9}, volume).values()) == expected


def test_clipping_shortens_only_what_is_longer_than_the_limit() -> None:
    assert clip_factors({"a": 1.0, "b": 2.0, "c": 30.0}, 1.5) == {"a": 1.0, "b": 1.0, "c": 0.1}
    assert clip_factors({"a": 0.0, "b": 0.0}, 1.5) == {"a": 1.0, "b": 1.0}


@few
@given(norms=st.lists(st.floats(0, 1e6), min_size=1, max_size=7), clip=st.floats(0.5, 3))
def test_after_clipping_no_update_is_longer_than_the_limit(norms: list[float], clip: float) -> None:
    named = {str(k): n for k, n in enumerate(norms)}
    factors = clip_factors(named, clip)
    limit = clip * sorted(norms)[len(norms) // 2]  # at least the median
    assert all(0 <= f <= 1 for f in factors.values())
    assert all(named[c] * f <= limit * (1 + 1e-9) for c, f in factors.items())


def test_those_who_send_nothing_do_not_shorten_the_others() -> None:
    nothing = {name: Factors(0 * f.B, f.A) for name, f in _adapter(9).items()}
    updates: dict[str, Adapter] = {
        "a": _adapter(1),
        "b": _adapter(2),
        "c": nothing,
        "d": nothing,
        "e": nothing,
    }
    assert clip_updates(updates, 1.5) == dict.fromkeys(updates, 1.0)
    assert clip_updates({"c": nothing}, 1.5) == {"c": 1.0}


def test_a_tenfold_update_moves_the_merge_at_most_as_far_as_clipping_allows() -> None:
    updates: dict[str, Adapter] = {site: _adapter(ord(site)) for site in "abc"}
    updates["d"] = {k: Factors(10 * f.B, f.A) for k, f in _adapter(ord("d")).items()}
    norms = update_norms(updates)
    shares = dict.fromkeys(updates, 0.25)
    open_step = merge_step(updates, shares)
    clips = clip_factors(norms, 1.5)
    clipped = merge_step(updates, {s: shares[s] * clips[s] for s in shares})
    assert clips["d"] < 0.3
    assert adapter_norm(open_step) > 2 * adapter_norm(clipped)


def test_update_norms_are_those_of_the_dense_updates() -> None:
    update = _adapter(3)
    assert update_norms({"a": update})["a"] == pytest.approx(_distance(update, {}), rel=1e-12)
