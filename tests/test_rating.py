"""Rating: weights by hand, what a rater or a friend cannot do, and what one measurement is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.labels import STRUCTURES
from model.rating import MEAN, Finding, RatedWeight, RatingRule, measure_aspects, measure_gain, rated_weights

few = settings(deadline=None, max_examples=60)
RULE = RatingRule(strictness=80.0, margin=0.05, margin_structure=0.12, doubt=1.0, dissent=0.25)
SITES = ("a", "b", "c", "d", "e")
NAN = math.nan
RV, MYO, LV = STRUCTURES
Table = Mapping[str, Mapping[str, Mapping[str, Finding]]]

gain = st.floats(-1, 1, allow_subnormal=False)
error = st.floats(0, 0.5, allow_subnormal=False)
findings = st.builds(Finding, gain, error)
aspects = st.dictionaries(st.sampled_from([MEAN, *STRUCTURES]), findings, max_size=4)
tables = st.dictionaries(
    st.sampled_from(SITES), st.dictionaries(st.sampled_from(SITES), aspects, max_size=5), max_size=5
)


def saw(value: float, error: float = 0.0, aspect: str = MEAN) -> dict[str, Finding]:
    """One rater's view in one aspect."""
    return {aspect: Finding(value, error)}


def by_all(value: float, candidate: str) -> dict[str, dict[str, Finding]]:
    """The same view of all sites but the candidate, in every aspect."""
    seen = {aspect: Finding(value, 0.0) for aspect in (MEAN, *STRUCTURES)}
    return {rater: seen for rater in SITES if rater != candidate}


def honest_round() -> dict[str, dict[str, dict[str, Finding]]]:
    """Five candidates, each seen by the four others to help a little."""
    return {c: by_all(0.01, c) for c in SITES}


def shown_by(table: Table, rater: str, value: float) -> dict[str, dict[str, Mapping[str, Finding]]]:
    """The same round with one rater's words replaced by ``value`` everywhere."""
    return {c: {r: saw(value) if r == rater else f for r, f in rated.items()} for c, rated in table.items()}


def test_weights_by_hand() -> None:
    rated = rated_weights(
        honest_round()
        | {
            "b": {
                "a": saw(-0.04),
                "c": saw(-0.06),
                "d": saw(-0.08),
                "e": saw(-0.02),
            },  # −.02 aside, −.04 counts
            "c": {
                "a": saw(-0.30),
                "b": saw(-0.11),
                "d": saw(-0.10),
                "e": saw(-0.40),
            },  # −.10 aside, −.11 counts
        },
        RULE,
    )
    assert {r.reference for r in rated.values()} == {0.0}
    assert (rated["b"].gain, rated["b"].weight) == (-0.04, 1.0)
    assert rated["c"].gain == -0.11
    assert rated["c"].penalty == pytest.approx(0.06)
    assert rated["c"].weight == pytest.approx(math.exp(-80 * 0.06))
    assert rated["c"].aspect == MEAN
    assert rated["c"].raters == 4


def test_doubt_moves_every_finding_in_the_candidates_favour() -> None:
    seen = {"a": saw(-0.20, 0.05), "b": saw(-0.18, 0.01), "d": saw(-0.30, 0.04), "e": saw(-0.15, 0.02)}
    rated = rated_weights(honest_round() | {"c": seen}, RULE)["c"]
    assert rated.gain == pytest.approx(-0.15)  # −.15, −.17, −.26, −.13: the best is aside
    assert rated.weight == pytest.approx(math.exp(-80 * 0.10))


@few
@given(lie=st.floats(-100, 100), others=st.lists(st.floats(-0.05, 1), min_size=15, max_size=15))
def test_one_liar_changes_no_weight_of_candidates_that_the_honest_raters_accept(
    lie: float, others: list[float]
) -> None:
    values = iter(others)
    table = {
        c: {r: saw(0.0 if r == "e" else next(values)) for r in SITES if r != c} for c in SITES if c != "e"
    }
    table["e"] = {r: saw(0.0) for r in SITES if r != "e"}
    lied = rated_weights(shown_by(table, "e", lie), RULE)
    assert {r.weight for r in rated_weights(table, RULE).values()} == {1.0}
    assert {r.weight for r in lied.values()} == {1.0}


def test_two_liars_of_five_do_not_bring_down_an_honest_candidate() -> None:
    lied = shown_by(shown_by(honest_round(), "a", -0.5), "b", -0.5)
    rated = rated_weights(lied, RULE)
    assert [rated[c].weight for c in "cde"] == [1.0] * 3


@few
@given(praise=st.floats(-1, 100), doubt=st.floats(0, 100))
def test_one_friend_cannot_hide_harm(praise: float, doubt: float) -> None:
    hurt = {r: saw(-0.4) for r in "abd"}
    alone = rated_weights(honest_round() | {"c": {**hurt, "e": saw(-0.4)}}, RULE)["c"]
    befriended = rated_weights(honest_round() | {"c": {**hurt, "e": saw(praise, doubt)}}, RULE)["c"]
    assert befriended.weight == pytest.approx(alone.weight)
    assert befriended.weight < 1e-10


def test_of_two_raters_the_kinder_decides() -> None:
    """Fewer than three cannot outvote one: then harm counts only if both see it."""
    rated = rated_weights({"a": {"b": saw(-0.4), "c": saw(0.0)}, "b": {"a": saw(-0.4), "c": saw(-0.3)}}, RULE)
    assert rated["a"].weight == 1.0
    assert rated["b"].gain == -0.3
    assert rated["b"].weight < 1


def test_three_unlucky_noisy_findings_and_a_good_one_cost_an_honest_candidate_nothing() -> None:
    unlucky = {"a": saw(-0.15, 0.12), "b": saw(-0.10, 0.07), "d": saw(-0.20, 0.16), "e": saw(0.02, 0.01)}
    assert rated_weights(honest_round() | {"c": unlucky}, RULE)["c"].weight == 1.0


def test_harm_that_all_see_is_penalised_and_the_others_are_not() -> None:
    rated = rated_weights(honest_round() | {"c": by_all(-0.3, "c")}, RULE)
    assert rated["c"].penalty == pytest.approx(0.25)
    assert rated["c"].weight == pytest.approx(math.exp(-80 * 0.25))
    assert [rated[c].weight for c in "abde"] == [1.0] * 4


@pytest.mark.parametrize("structure", STRUCTURES)
def test_harm_to_one_structure_alone_is_penalised_and_named(structure: str) -> None:
    seen = {r: saw(-0.03) | saw(-0.30, aspect=structure) for r in "abde"}
    rated = rated_weights(honest_round() | {"c": seen}, RULE)["c"]
    assert rated.aspect == structure
    assert rated.penalty == pytest.approx(0.30 - 0.12)
    assert rated.gain == pytest.approx(-0.30)


def test_each_aspect_has_its_own_margin() -> None:
    forgiven = {r: saw(-0.05) | saw(-0.12, aspect=LV) for r in "abde"}
    assert rated_weights(honest_round() | {"c": forgiven}, RULE)["c"].weight == 1.0
    too_much = {r: saw(-0.12) | saw(-0.12, aspect=LV) for r in "abde"}
    rated = rated_weights(honest_round() | {"c": too_much}, RULE)["c"]
    assert (rated.aspect, rated.penalty) == (MEAN, pytest.approx(0.07))


def test_the_reference_forgives_when_all_are_harmful_alike() -> None:
    rated = rated_weights({c: by_all(-0.4, c) for c in SITES}, RULE)
    assert {r.reference for r in rated.values()} == {-0.4}
    assert {r.weight for r in rated.values()} == {1.0}
    worse = rated_weights({c: by_all(-0.4, c) for c in "abcd"} | {"e": by_all(-0.6, "e")}, RULE)
    assert [worse[c].weight for c in "abcd"] == [1.0] * 4
    assert worse["e"].penalty == pytest.approx(0.15)


def test_the_reference_is_the_median_of_what_is_conceded() -> None:
    gains = dict(zip(SITES, (-0.1, -0.2, -0.3, -0.4, -0.5), strict=True))
    rated = rated_weights({c: by_all(g, c) for c, g in gains.items()}, RULE)
    assert {r.reference for r in rated.values()} == {-0.3}
    assert [r.penalty for r in rated.values()] == pytest.approx([0, 0, 0, 0.05, 0.15])


def test_a_good_round_raises_no_bar() -> None:
    """The reference is never above 0: who gains nothing where others gain much is no culprit."""
    rated = rated_weights({c: by_all(0.5, c) for c in "abcd"} | {"e": by_all(0.0, "e")}, RULE)
    assert rated["e"].weight == 1.0


@pytest.mark.parametrize("nonsense", [NAN, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["gain", "error"])
def test_a_finding_that_is_no_number_is_no_evidence(nonsense: float, field: str) -> None:
    bad = {MEAN: replace(Finding(-0.9, 0.0), **{field: nonsense})}
    table = honest_round() | {"c": by_all(-0.3, "c")}
    spoiled = {c: {**rated, "x": bad, "y": bad} for c, rated in table.items()}
    assert _decided(rated_weights(spoiled, RULE)) == _decided(rated_weights(table, RULE))
    alone = rated_weights({"a": {"x": bad}}, RULE)["a"]
    assert (alone.gain, alone.weight) == (None, 1.0)


def test_a_rating_of_oneself_is_ignored() -> None:
    table = honest_round() | {"c": by_all(-0.3, "c")}
    boasting = {c: {**rated, c: saw(1.0 if c == "c" else -1.0)} for c, rated in table.items()}
    assert rated_weights(boasting, RULE) == rated_weights(table, RULE)


@pytest.mark.parametrize("nothing", [{}, {"c": saw(-0.9)}, {"a": {}}], ids=["nobody", "itself", "no aspect"])
def test_a_candidate_that_nobody_rated_keeps_its_weight(nothing: dict[str, dict[str, Finding]]) -> None:
    rated = rated_weights(honest_round() | {"c": nothing}, RULE)["c"]
    assert (rated.gain, rated.penalty, rated.weight, rated.aspect) == (None, 0.0, 1.0, MEAN)
    assert rated_weights({}, RULE) == {}


def test_without_strictness_rating_changes_nothing() -> None:
    rated = rated_weights(honest_round() | {"c": by_all(-1.0, "c")}, replace(RULE, strictness=0.0))
    assert {r.weight for r in rated.values()} == {1.0}


@few
@given(table=tables, data=st.data())
def test_the_order_of_candidates_raters_and_aspects_is_irrelevant(table: Table, data: st.DataObject) -> None:
    turned = {
        c: {
            r: dict(data.draw(st.permutations(list(table[c][r].items()))))
            for r in data.draw(st.permutations(list(table[c])))
        }
        for c in data.draw(st.permutations(list(table)))
    }
    assert rated_weights(turned, RULE) == rated_weights(table, RULE)


@few
@given(table=tables)
def test_weights_lie_in_0_to_1_and_say_what_they_are_made_of(table: Table) -> None:
    rated = rated_weights(table, RULE)
    assert set(rated) == set(table)
    for r in rated.values():
        assert 0 < r.weight <= 1
        assert r.reference <= 0
        assert r.weight == math.exp(-RULE.strictness * r.penalty)
        if r.penalty > 0:
            margin = RULE.margin if r.aspect == MEAN else RULE.margin_structure
            assert r.gain is not None
            assert r.penalty == pytest.approx(r.reference - margin - r.gain)


@few
@given(table=tables, candidate=st.sampled_from(SITES), more=error)
def test_more_doubt_about_a_candidate_never_lowers_its_weight(
    table: Table, candidate: str, more: float
) -> None:
    doubted = {
        c: {
            r: {a: replace(f, error=f.error + more * (c == candidate)) for a, f in seen.items()}
            for r, seen in rated.items()
        }
        for c, rated in table.items()
    }
    before, after = rated_weights(table, RULE), rated_weights(doubted, RULE)
    if candidate in table:
        assert after[candidate].penalty <= before[candidate].penalty + 1e-12


@few
@given(harmed=st.lists(findings, min_size=4, max_size=4), less=error, more=error)
def test_a_more_doubtful_rule_never_lowers_a_weight_while_the_typical_update_helps(
    harmed: list[Finding], less: float, more: float
) -> None:
    table = honest_round() | {"c": {r: {MEAN: f} for r, f in zip("abde", harmed, strict=True)}}
    weights = [rated_weights(table, replace(RULE, doubt=z))["c"].weight for z in (less, less + more)]
    assert weights[0] <= weights[1] + 1e-12


def test_doubt_in_the_others_costs_a_candidate_nothing() -> None:
    """The reference moves with doubt as well, but no further than the margin forgives."""
    table = {c: {r: saw(-0.5, 0.0 if c == "a" else 0.5) for r in SITES if r != c} for c in SITES}
    assert rated_weights(table, RULE)["a"].weight == 1.0


@few
@given(n=st.integers(2, 12), loss=st.floats(0.5, 1))
def test_great_harm_to_one_case_of_every_rater_is_no_matter_of_doubt(n: int, loss: float) -> None:
    """One case of n lost by x has mean −x/n and error x/n, so an unbounded doubt would excuse any x."""
    seen = {r: saw(-loss / n, loss / n) for r in "abde"}
    rated = rated_weights(honest_round() | {"c": seen}, RULE)["c"]
    assert rated.penalty == pytest.approx(max(0.0, loss / n - 2 * RULE.margin))


def test_an_aspect_that_only_one_candidate_has_is_compared_with_none() -> None:
    harmless = {c: {r: saw(0.0) for r in SITES if r != c} for c in SITES}
    invented = {r: saw(-0.04) | saw(-1.0, aspect=RV) for r in "abde"}
    assert rated_weights(harmless | {"c": invented}, RULE)["c"].weight < 1e-10


def test_who_was_not_rated_does_not_stand_in_the_middle_of_those_who_were() -> None:
    rated = rated_weights({"a": {}, "b": {"a": saw(-0.5)}}, RULE)
    assert rated["b"].reference == -0.25
    assert rated["b"].weight < 1e-6
    assert rated["a"].weight == 1.0


def test_a_gain_is_the_mean_over_cases_and_not_over_slices() -> None:
    before = torch.tensor([0.5, 0.5, 0.5, 0.5])
    after = torch.tensor([0.6, 0.6, 0.6, 0.9])  # case 0 gains .1 thrice, case 7 gains .4 once
    found = measure_gain(before, after, torch.tensor([0, 0, 0, 7]))
    assert found is not None
    assert found.gain == pytest.approx(0.25)
    assert found.error == pytest.approx(0.15)  # sd of .1 and .4 is .2121, over √2


def test_slices_of_one_case_make_no_more_evidence_than_the_case() -> None:
    before, after = torch.tensor([0.5, 0.5]), torch.tensor([0.6, 0.9])
    once = measure_gain(before, after, torch.tensor([0, 1]))
    often = measure_gain(before.repeat(9), after.repeat(9), torch.tensor([0, 1]).repeat(9))
    assert once is not None
    assert often is not None
    assert (often.gain, often.error) == (pytest.approx(once.gain), pytest.approx(once.error))


def test_a_single_case_has_the_error_of_its_slices_and_a_single_slice_none() -> None:
    before, case = torch.tensor([0.5, 0.5]), torch.tensor([3, 3])
    found = measure_gain(before, torch.tensor([0.6, 0.9]), case)
    assert found is not None
    assert (found.gain, found.error) == (pytest.approx(0.25), pytest.approx(0.15))
    assert measure_gain(before[:1], before[:1] - 0.2, case[:1]) == Finding(pytest.approx(-0.2), 0.0)


def test_a_slice_undefined_on_one_side_counts_as_1_there() -> None:
    before = torch.tensor([NAN, 0.4, NAN])  # rightly empty, wrong, rightly empty
    after = torch.tensor([0.0, NAN, NAN])  # a structure that is not there, rightly empty, both empty
    found = measure_gain(before, after, torch.tensor([0, 1, 2]))
    assert found is not None
    assert found.gain == pytest.approx((-1.0 + 0.6) / 2)
    assert measure_gain(before[2:], after[2:], torch.tensor([2])) is None
    assert measure_gain(before[:0], after[:0], torch.tensor([])) is None


def test_aspects_are_the_mean_of_the_defined_structures_and_each_of_them() -> None:
    before = torch.tensor([[0.5, 0.5, NAN], [0.5, 0.5, NAN]])
    after = torch.tensor([[0.1, 0.7, NAN], [0.1, 0.7, NAN]])
    found = measure_aspects(before, after, torch.tensor([0, 1]))
    assert set(found) == {MEAN, RV, MYO}
    assert found[RV].gain == pytest.approx(-0.4)
    assert found[MYO].gain == pytest.approx(0.2)
    assert found[MEAN].gain == pytest.approx(-0.1)


def _decided(rated: Mapping[str, RatedWeight]) -> dict[str, tuple[float | None, float, float, str]]:
    return {c: (r.gain, r.reference, r.weight, r.aspect) for c, r in rated.items()}
