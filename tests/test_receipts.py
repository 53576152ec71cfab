"""A receipt says what the raters saw and what the step were without the update; numbers by hand, sentences whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from report_files import SITES, receipts, update

from model.factors import Adapter, Factors
from model.rating import Finding, Findings, RatingRule, rated_weights
from tasks.bank import Voice
from tasks.leave_out import Ingredients, inner_products, leave_out
from tasks.receipts import Judgement, Sender, conceded_gains, explain, interval, write_receipts
from tasks.records import Receipt, Seen, Without

few = settings(deadline=None, max_examples=30)
RULE = RatingRule(strictness=80.0, margin=0.05, margin_structure=0.12, doubt=1.0, dissent=0.25)
SPACE = "\u00a0"


def dense(adapter: Adapter) -> torch.Tensor:
    """The whole update as one vector; both layers of 3 × 2, a missing one zero."""
    zero = Factors(torch.zeros(3, 1), torch.zeros(1, 2))
    return torch.cat([adapter.get(name, zero).product().double().flatten() for name in ("a", "b")])


def drawn(seed: int, layers: str = "ab", rank: int = 2) -> dict[str, Factors]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: Factors(torch.randn(3, rank, generator=generator), torch.randn(rank, 2, generator=generator))
        for name in layers
    }


def line(value: float, other: float = 0.0) -> dict[str, Factors]:
    """An update that is the vector (value, other)."""
    return {"a": Factors(torch.tensor([[value], [other]]), torch.ones(1, 1))}


def mixed(updates: dict[str, dict[str, Factors]], **changed: Any) -> Ingredients:
    plain: dict[str, Any] = {"weights": dict.fromkeys(updates, 1.0), "volumes": dict.fromkeys(updates, 1.0)}
    plain |= {"clips": dict.fromkeys(updates, 1.0), "form": "renormalised"}
    return Ingredients(updates, **(plain | changed))


def seen(**gains: float) -> dict[str, Seen]:
    return {aspect: Seen(gain=gain, low=gain, high=gain) for aspect, gain in gains.items()}


def receipt(**changed: object) -> Receipt:
    """Four sites saw from −.03 to +.05, a quarter of the step, 18 % of difference."""
    numbers: dict[str, object] = {
        "site": "st-anna",
        "train_slices": 100,
        "age": 0,
        "rank": 8,
        "seen": {
            rater: seen(mean=gain) for rater, gain in zip("abcd", (-0.03, 0.0, 0.02, 0.05), strict=True)
        },
        "gain": 0.01,
        "conceded": {"mean": 0.03},
        "aspect": "mean",
        "reference": 0.0,
        "penalty": 0.0,
        "rated_weight": 1.0,
        "used_weight": 1.0,
        "share": 0.24,
        "norm": 1.0,
        "clipped_to": 1.0,
        "adapter_bytes": 32_000,
        "without": Without(change=0.18, cosine=0.98, shares={"a": 0.5, "b": 0.5}),
        "reason": "",
    }
    return Receipt(**(numbers | changed))


def harmful(**changed: object) -> Receipt:
    """All but one of four saw a loss, most of it in the left ventricle."""
    votes = zip("abcd", (-0.24, -0.21, -0.22, 0.02), (-0.80, -0.78, -0.81, 0.01), strict=True)
    numbers: dict[str, object] = {
        "seen": {rater: seen(mean=mean, LV=lv) for rater, mean, lv in votes},
        "conceded": {"mean": -0.21, "LV": -0.78},
        "aspect": "LV",
        "penalty": 0.66,
        "rated_weight": 0.0,
        "used_weight": 0.0,
        "share": 0.0,
        "without": Without(change=0.0, cosine=1.0, shares={"a": 1.0}),
    }
    return receipt(**(numbers | changed))


def said(told: Receipt, mode: str = "rated", full: float = 0.24, discount: float = 1.0) -> str:
    return explain(told, RULE, mode, full, discount).replace(SPACE, " ")


def test_what_nobody_minds_reads_as_such() -> None:
    assert said(receipt()) == (
        "4 sites rated it: from −0.03 to +0.05 Dice; nothing speaks against it. "
        "It makes 24 % of the step; without it the step would be 18 % different."
    )


def test_harm_reads_as_who_saw_it_how_much_of_it_and_what_it_cost() -> None:
    assert said(harmful()) == (
        "4 sites rated it. All but one saw a loss of at least 0.78 Dice in the left ventricle (0.21 over all "
        "structures), more than the 0.12 that is forgiven, so it makes 0 % of the step instead of 24 %. "
        "Without it the step is the same."
    )


def test_harm_in_the_mean_names_the_worst_structure() -> None:
    text = said(harmful(aspect="mean", conceded={"mean": -0.21, "LV": -0.78}))
    assert (
        "a loss of at least 0.21 Dice (0.78 in the left ventricle), more than the 0.05 that is forgiven"
        in text
    )
    text = said(harmful(aspect="mean", conceded={"mean": -0.21, "LV": -0.1}))
    assert "a loss of at least 0.21 Dice, more than" in text


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ((-0.3,), "1 site rated it. It saw a loss"),
        ((-0.3, -0.25), "2 sites rated it. Both saw a loss"),
        ((-0.3, -0.25, -0.2), "3 sites rated it. All saw a loss"),
        ((-0.3, -0.25, 0.1), "3 sites rated it. All but one saw a loss"),
        (tuple([-0.3] * 6 + [0.1, 0.2]), "8 sites rated it. All but 2 saw a loss"),
    ],
)
def test_one_both_and_all_are_told_apart(gains: tuple[float, ...], words: str) -> None:
    votes = {str(k): seen(mean=gain) for k, gain in enumerate(gains)}
    assert said(harmful(seen=votes, aspect="mean", conceded={"mean": -0.2})).startswith(words)


def test_what_a_usual_update_costs_is_forgiven_and_said() -> None:
    text = said(harmful(aspect="mean", reference=-0.04, conceded={"mean": -0.21}))
    assert "the 0.09 that is forgiven (0.04 of it because this round's usual update costs as much)" in text


def test_a_forgiven_loss_is_not_called_nothing() -> None:
    text = said(receipt(conceded={"mean": 0.01, "LV": -0.08}))
    assert "Dice; a loss of 0.08 Dice in the left ventricle is small enough to be forgiven." in text


def test_one_rater_and_equal_raters_need_no_range() -> None:
    assert said(receipt(seen={"a": seen(mean=0.014)})).startswith("1 site rated it: +0.01 Dice; nothing")
    assert said(receipt(seen={"a": seen(mean=-0.001), "b": seen(mean=0.001)})).startswith(
        "2 sites rated it: +0.00 Dice;"
    )


def test_an_update_that_nobody_rated_says_why() -> None:
    unrated = receipt(seen={}, gain=None, conceded={})
    assert said(unrated).startswith("No site rated it, so nothing speaks against it. It makes 24 %")
    assert said(unrated, "average").startswith("Updates are not rated in this merge mode. It makes 24 %")


def test_shadow_mode_says_what_it_does_not_do() -> None:
    text = said(harmful(used_weight=1.0, share=0.24, without=receipt().without), "shadow")
    assert "so its weight would be 0.00; this merge mode does not apply it. It makes 24 % of the step" in text


def test_clipping_is_said() -> None:
    assert "larger than the others' and were scaled down to 40 %. It makes" in said(receipt(clipped_to=0.4))


@pytest.mark.parametrize(
    ("age", "discount", "words"), [(1, 0.5, "1 round late and counts for 50 %"), (2, 0.25, "2 rounds late")]
)
def test_lateness_is_said(age: int, discount: float, words: str) -> None:
    text = said(receipt(age=age), discount=discount)
    assert f"nothing speaks against it. It came {words}" in text
    assert f"counts for {discount:.0%}".replace("%", " %") + " of its volume. It makes 24 %" in text


def test_the_only_update_and_a_tiny_one_read_right() -> None:
    assert said(receipt(without=None)).endswith("without it there would be no step.")
    tiny = receipt(share=0.004, without=Without(change=0.002, cosine=1.0, shares={}))
    assert said(tiny).endswith(
        "It makes less than 1 % of the step; without it the step would be less than 1 % different."
    )


def test_no_sentence_names_a_rater() -> None:
    for told in receipts(3, SITES):
        assert told.seen and not any(rater in told.reason for rater in SITES)


def test_an_interval_is_two_standard_errors_wide_and_no_wider_than_dice() -> None:
    found = interval(Finding(0.1, 0.05))
    assert (found.gain, found.low, found.high) == pytest.approx((0.1, 0.1 - 0.098, 0.1 + 0.098))
    assert interval(Finding(-0.9, 0.5)).low == -1.0
    assert interval(Finding(0.9, 0.5)).high == 1.0


def test_conceded_is_the_second_best_with_its_doubt() -> None:
    findings = {s: {"mean": Finding(g, 0.01)} for s, g in zip("abcd", (0.3, -0.1, -0.2, -0.3), strict=True)}
    assert conceded_gains(findings, RULE) == pytest.approx({"mean": -0.09})


@given(
    gains=st.dictionaries(
        st.sampled_from("abcdef"),
        st.dictionaries(st.sampled_from(["mean", "RV", "MYO", "LV"]), st.floats(-1, 1)),
    )
)
@few
def test_what_decided_is_among_what_was_conceded(gains: dict[str, dict[str, float]]) -> None:
    findings: dict[str, Findings] = {s: {a: Finding(g, 0.02) for a, g in f.items()} for s, f in gains.items()}
    rated = rated_weights({"x": findings}, RULE)["x"]
    conceded = conceded_gains(findings, RULE)
    assert conceded.get(rated.aspect) == (None if rated.gain is None else pytest.approx(rated.gain, abs=1e-6))


def test_inner_products_are_those_of_the_dense_updates() -> None:
    updates = {"x": drawn(1), "y": drawn(2, "a", 1), "z": drawn(3, "b", 4)}
    flat = torch.stack([dense(updates[site]) for site in sorted(updates)])
    assert torch.allclose(inner_products(updates), flat @ flat.T, atol=1e-5)


def test_leaving_out_by_hand() -> None:
    used = mixed(
        {"x": line(4.0), "y": line(0.0, 3.0)}
    )  # the step is (2, 1.5), of length 2.5; without x it is (0, 3)
    found = leave_out(used, inner_products(used.updates), "x")
    assert found is not None
    assert found.change == pytest.approx((2**2 + 1.5**2) ** 0.5 / 2.5)
    assert found.cosine == pytest.approx(1.5 * 3 / (2.5 * 3))
    assert found.shares == {"y": 1.0}


@given(
    weights=st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    volumes=st.lists(st.integers(1, 200), min_size=3, max_size=3),
    clip=st.floats(0.1, 1),
    form=st.sampled_from(["paper", "renormalised"]),
)
@few
def test_the_counterfactual_is_the_merge_without_the_site(
    weights: list[float], volumes: list[int], clip: float, form: str
) -> None:
    sites, updates = "xyz", {"x": drawn(1), "y": drawn(2, "a", 1), "z": drawn(3)}
    given_ = (weights, map(float, volumes), (1.0, clip, 1.0))
    by_site = [dict(zip(sites, numbers, strict=True)) for numbers in given_]
    w, v, c = by_site
    whole = mixed(updates, weights=w, volumes=v, clips=c, form=form)
    two = [{s: numbers[s] for s in "xz"} for numbers in by_site]
    alone = mixed({s: updates[s] for s in "xz"}, weights=two[0], volumes=two[1], clips=two[2], form=form)
    before, after = dense(whole.step()), dense(alone.step())
    found = leave_out(whole, inner_products(updates), "y")
    assert found is not None and found.change is not None and found.cosine is not None
    assert found.change == pytest.approx(float((before - after).norm() / before.norm()), abs=1e-5)
    assert found.cosine == pytest.approx(float(before @ after / before.norm() / after.norm()), abs=1e-5)
    assert found.shares == pytest.approx(alone.shares(), abs=1e-6)


def test_leaving_out_what_has_no_weight_changes_nothing() -> None:
    used = mixed({"x": line(1.0), "y": line(2.0)}, weights={"x": 0.0, "y": 1.0})
    products = inner_products(used.updates)
    found = leave_out(used, products, "x")
    assert found is not None and found.change == 0.0
    assert leave_out(used, products, "y") is None


def test_a_step_of_zero_has_no_relative_change() -> None:
    used = mixed({"x": line(0.0), "y": line(0.0)})
    found = leave_out(used, inner_products(used.updates), "x")
    assert found is not None and (found.change, found.cosine) == (None, None)


def test_a_receipt_states_the_shares_that_were_merged() -> None:
    used = mixed({"x": line(1.0), "y": line(3.0)}, weights={"x": 1.0, "y": 0.5}, volumes={"x": 1.0, "y": 4.0})
    judged = {s: Judgement({}, rated_weights({s: {}}, RULE)[s], 1.0) for s in "xy"}
    senders = {s: Sender(Voice(update(1, s, 10), 0), 10, 77, 1.0) for s in "xy"}
    x, y = write_receipts(senders, judged, used, RULE, "rated")
    assert (x.share, y.share) == pytest.approx((1 / 3, 2 / 3), abs=1e-6)
    assert (x.without and x.without.shares, y.adapter_bytes) == ({"y": 1.0}, 77)
    assert (x.gain, x.conceded, x.seen) == (None, {}, {})
