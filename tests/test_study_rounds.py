"""Rounds of the study: every method from one base, merges that must agree, scenarios that reach whom they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from study_files import CULPRIT, SITES, same_weights, trial_of
from torch import Tensor

import tasks.study.local
import tasks.study.merging
import tasks.study.trial
from model.factors import Adapter, Factors, adapter_norm, factorise
from model.lora import LoraSpec, layer_rank
from model.methods.hetlora import cut
from model.network import ResidualUNet, is_wide
from model.seeds import derive_seed
from tasks.settings import Params
from tasks.slices import Slices
from tasks.study.cell import Outcome, Weights
from tasks.study.choices import ALL
from tasks.study.local import fresh_pairs, train_pairs
from tasks.study.memo import Memo
from tasks.study.methods import METHODS
from tasks.study.scenarios import SCENARIOS
from tasks.study.trial import Trial

EXACT = (
    "package.dtype=fp32",
    "package.upload_bytes=0",
    "package.download_bytes=0",
    "package.feedback=false",
    "merge.rank_max=64",
)
"""Nothing is cut on the way."""
HONEST = tuple(site for site in SITES if site != CULPRIT)
PERSONAL = ("local-lora", "local-full", "fedsa-lora")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rounds") / "study"


@pytest.fixture
def trial(tmp_path_factory: pytest.TempPathFactory, root: Path):  # type: ignore[no-untyped-def]
    """Makes trials of a method in a scenario under overrides, each with an empty memory."""

    def made(*asked: str) -> Trial:
        memo = Memo(tmp_path_factory.mktemp("memo"), "")
        return replace(trial_of(tmp_path_factory, root, *asked), memo=memo)

    return made


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Adapter], dict[str, float]]]:
    """Updates and coefficients of every merge."""
    seen: list[tuple[dict[str, Adapter], dict[str, float]]] = []
    merge = tasks.study.merging.merge_step

    def spy(updates: Mapping[str, Adapter], coefficients: Mapping[str, float]) -> dict[str, Factors]:
        seen.append((dict(updates), dict(coefficients)))
        return merge(updates, coefficients)

    monkeypatch.setattr(tasks.study.merging, "merge_step", spy)
    return seen


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Weights]:
    """The weights of every network that is about to be trained."""
    seen: list[Weights] = []
    load = tasks.study.local._load

    def spy(params: Params, weights: Weights) -> ResidualUNet:
        seen.append(weights)
        return load(params, weights)

    monkeypatch.setattr(tasks.study.local, "_load", spy)
    return seen


def run(trial: Trial, method: str) -> Outcome:
    return ALL[method].run(trial)


def far(a: Weights, b: Weights) -> float:
    """Largest difference of any weight."""
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_starts_from_the_base_and_leaves_finite_models_that_differ_from_it(
    trial, starts: list[Weights], method: str
) -> None:
    at_work = trial(method)
    outcome = run(at_work, method)
    assert set(outcome.models) == (set(SITES) if method in PERSONAL else {"global"})
    assert all(same_weights(start, at_work.base) for start in starts)
    for weights in outcome.models.values():
        assert weights.keys() == at_work.base.keys()
        assert all(W.dtype == torch.float32 and W.isfinite().all() for W in weights.values())
        assert same_weights(weights, at_work.base) == (method == "zero-shot")
    assert sorted(outcome.rounds["site"]) == list(SITES)
    assert outcome.rounds[["validation_dice", "weight"]].notna().all(axis=None)
    assert (outcome.rounds[["validation_dice", "weight"]].stack().between(0, 1)).all()


def test_stack_and_residual_give_one_model_in_the_first_round(trial) -> None:
    """FLoRA and FedEx-LoRA fold Σ p B A exactly; with equal ranks they train the same pairs."""
    equal = ("clean", "lora.rank_rule=constant", "training.steps=2")  # in the first step A stands still
    models = {m: run(trial(m, *equal), m).models["global"] for m in ("flora", "fedex-lora", "fedit")}
    assert far(models["flora"], models["fedex-lora"]) < 1e-6
    assert far(models["flora"], models["fedit"]) > 1e-5


def test_flexlora_publishes_the_best_cut_of_floras_stack(trial) -> None:
    equal = ("clean", "lora.rank_rule=constant", "training.steps=2")
    at_work = trial("flora", *equal)
    flora = run(at_work, "flora").models["global"]
    flexlora = run(trial("flexlora", *equal), "flexlora").models["global"]
    for name, W in at_work.base.items():
        step, cut_step = flora[name] - W, flexlora[name] - W
        rank = layer_rank(W, at_work.params.lora.rank_max) if is_wide(W, 2500) else W.shape[0]
        best = factorise(step, rank)[0].product().reshape(W.shape)
        assert float((cut_step - best).abs().max()) < 1e-6


@pytest.mark.parametrize("method", ["hetlora", "flexlora"])
def test_a_rank_above_what_a_layer_bears_is_capped(trial, method: str) -> None:
    outcome = run(trial(method, "clean", "lora.rank_max=60", "merge.rank_max=64", "study.rounds=2"), method)
    assert set(outcome.rounds["round"]) == {1, 2}


def test_a_wide_layers_bias_is_trained_whole_in_every_method(trial) -> None:
    outcome = run(trial("fedit", "clean", "lora.wide_from=1", "study.rounds=2"), "fedit")
    assert set(outcome.rounds["round"]) == {1, 2}


def test_an_uncut_average_from_floras_start_is_floras_step(trial, monkeypatch: pytest.MonkeyPatch) -> None:
    flora = run(trial("flora", "clean", *EXACT), "flora").models["global"]
    ours = trial("average", "clean", *EXACT)
    largest = max((ours.spec(site) for site in SITES), key=lambda spec: spec.rank)
    initial = fresh_pairs(ours.params, ours.base, largest, derive_seed(ours.seed, "pairs"))

    def from_its_pairs(
        params: Params, slices: Slices, start: Weights, spec: LoraSpec, steps: int, seed: int
    ) -> dict[str, Factors]:
        end = train_pairs(params, slices, start, spec, seed, cut(initial, spec.rank))
        narrow = {name: factorise(W - start[name], W.shape[0])[0] for name, W in end.whole.items()}
        return end.pairs | narrow

    monkeypatch.setattr(tasks.study.trial, "train_adapter", from_its_pairs)
    assert far(run(ours, "average").models["global"], flora) < 1e-6


def test_momentum_that_forgets_and_steps_whole_is_plain_averaging(trial) -> None:
    plain = ("clean", "study.server.beta=0", "study.server.rate_momentum=1", "study.rounds=2")
    with_momentum = run(trial("fedavgm", *plain), "fedavgm").models["global"]
    assert far(with_momentum, run(trial("fp16-all-ranks", *plain), "fp16-all-ranks").models["global"]) < 1e-5


def test_one_site_that_krum_chooses_is_the_whole_step(trial) -> None:
    at_work = trial("krum", "clean", *EXACT)
    krum = run(at_work, "krum").models["global"]
    alone = {site: run_alone(at_work, site) for site in SITES}
    assert min(far(krum, weights) for weights in alone.values()) < 1e-3  # fp16 on the way


def run_alone(trial: Trial, site: str) -> Weights:
    """One site's first update, folded."""
    seed, params = derive_seed(trial.seed, site, 1), trial.params
    train = trial.members[site].train
    update = tasks.study.local.train_adapter(
        params, train, trial.base, trial.spec(site), params.training.steps, seed
    )
    return {
        name: W + update[name].product().reshape(W.shape).float() if name in update else W
        for name, W in trial.base.items()
    }


def test_fedsa_shares_the_narrow_layers_and_keeps_the_rest_personal(trial) -> None:
    at_work = trial("fedsa-lora", "clean", "training.steps=2")
    models = run(at_work, "fedsa-lora").models
    wide = {name for name, W in at_work.base.items() if W.numel() >= at_work.params.lora.wide_from}
    assert wide
    for name in at_work.base:
        distinct = {tuple(models[site][name].flatten().tolist()) for site in SITES}
        assert len(distinct) == (len(SITES) if name in wide else 1)


def test_ffa_never_trains_a(trial) -> None:
    """Its merge refuses any A that is not the frozen one, so two rounds pass only with A untouched."""
    outcome = run(trial("ffa-lora", "clean", "study.rounds=2", "training.steps=2"), "ffa-lora")
    assert set(outcome.rounds["round"]) == {1, 2}


def test_adapters_within_the_budget_travel_in_every_round(trial) -> None:
    budgets = (
        "package.dtype=int4",
        "package.upload_bytes=2500",
        "package.download_bytes=3500",
        "study.rounds=2",
    )
    rounds = run(trial("average", "clean", *budgets), "average").rounds
    assert (rounds["upload_bytes"] <= 2500).all()
    assert (rounds["download_bytes"] <= 3500).all()
    assert (rounds["upload_bytes"] > 0).all()


def test_a_step_that_costs_too_much_is_halved_or_refused(trial) -> None:
    ruin = ("clean", "training.learning_rate_factors=1", "training.learning_rate_whole=1", "training.steps=3")
    at_work = trial("average", *ruin, "judge.tolerance=0")
    before = pd.Series(
        {site: float(at_work.validate(at_work.base, site).nanmean(1).nanmean()) for site in SITES}
    )
    after = run(at_work, "average").rounds.set_index("site")["validation_dice"]
    assert (after - before).median() >= 0


@pytest.mark.parametrize("scenario", ["swapped-labels", "shifted-masks", "flipped-images", "stealthy-poison"])
def test_falsified_data_reach_the_attacker_alone_and_never_the_test(trial, scenario: str) -> None:
    clean, attacked = (trial("rated", name).members for name in (SCENARIOS[scenario].beside, scenario))
    for site in SITES:
        assert attacked[site].attacker == (site == CULPRIT)
        assert _same_slices(attacked[site].train, clean[site].train) == (site != CULPRIT)
        assert _same_slices(attacked[site].test, clean[site].test)
        assert attacked[site].slices == clean[site].slices
        spared = site != CULPRIT or "validation" not in SCENARIOS[scenario].falsified
        assert torch.equal(attacked[site].panel.masks, clean[site].panel.masks) == (
            spared or scenario == "flipped-images"
        )


def test_copies_of_a_poisoner_do_not_make_it_count_for_more(trial) -> None:
    clean, poisoned = trial("rated", "scanner-shift"), trial("rated", "stealthy-poison")
    member = poisoned.members[CULPRIT]
    assert len(member.train.z) == 3 * member.slices == 3 * len(clean.members[CULPRIT].train.z)
    assert len(member.train.images) == len(member.train.masks) == len(member.train.patient)
    assert poisoned.shares(list(SITES)) == clean.shares(list(SITES))
    assert [poisoned.spec(s) for s in SITES] == [clean.spec(s) for s in SITES]


def test_colluders_falsify_what_they_train_on_but_rate_with_true_masks(trial) -> None:
    clean, colluding = trial("rated").members, trial("rated", "collusion").members
    assert [site for site in SITES if colluding[site].attacker] == ["hcm", "nor"]
    assert all(torch.equal(colluding[s].panel.masks, clean[s].panel.masks) for s in SITES)


def test_scanners_change_images_of_all_sides_and_no_mask(trial) -> None:
    clean, shifted = trial("rated").members, trial("rated", "scanner-shift").members
    for site in SITES:
        for side in ("train", "test"):
            before, after = getattr(clean[site], side), getattr(shifted[site], side)
            assert not torch.equal(before.images, after.images)
            assert torch.equal(before.masks, after.masks)
        assert not torch.equal(clean[site].panel.images, shifted[site].panel.images)


def test_faulty_raters_have_fewer_slices_or_other_masks(trial) -> None:
    many = "rating.slices=8"
    clean, tiny, biased = (
        trial("rated", name, many).members for name in ("clean", "tiny-rater", "biased-rater")
    )
    assert {s: len(tiny[s].panel.case) for s in SITES} == {s: 4 if s == CULPRIT else 8 for s in SITES}
    for site in SITES:
        assert torch.equal(biased[site].panel.masks, clean[site].panel.masks) == (site != CULPRIT)
        assert _same_slices(biased[site].train, clean[site].train)


def test_who_is_absent_is_missing_in_odd_rounds(trial) -> None:
    rounds = run(trial("average", "absent-half", "study.rounds=3"), "average").rounds
    theirs = rounds[rounds["site"] == CULPRIT].set_index("round")
    assert (theirs["upload_bytes"] > 0).tolist() == [False, True, False]
    assert theirs["weight"].isna().tolist() == [True, False, True]
    others = rounds[rounds["site"] != CULPRIT]
    assert others["weight"].notna().all()
    assert (others["upload_bytes"] > 0).all()


def test_a_late_update_arrives_a_round_later_for_less(trial, merged: list) -> None:  # type: ignore[type-arg]
    run(trial("average", "clean", *EXACT), "average")
    (on_time, _), *_ = merged
    merged.clear()
    at_work = trial("average", "late", *EXACT, "study.rounds=2", "merge.late_discount=0.5")
    run(at_work, "average")
    (first, _), (second, coefficients) = merged
    assert set(first) == set(HONEST)
    assert all(torch.equal(second[CULPRIT][n].product(), f.product()) for n, f in on_time[CULPRIT].items())
    slices = {site: at_work.members[site].slices * (0.5 if site == CULPRIT else 1.0) for site in SITES}
    whole = sum(slices.values())
    assert coefficients == pytest.approx({site: n / whole for site, n in slices.items()})


@pytest.mark.parametrize("merge", ["average", "rated"])
def test_a_free_rider_sends_nothing(trial, merged: list, merge: str) -> None:  # type: ignore[type-arg]
    run(trial(merge, "free-rider-zero"), merge)
    ((updates, _),) = merged
    assert {site: adapter_norm(update) > 0 for site, update in updates.items()} == {
        site: site != CULPRIT for site in SITES
    }


def test_a_replaying_free_rider_sends_the_last_step_back(trial, merged: list) -> None:  # type: ignore[type-arg]
    at_work = trial("average", "free-rider-replay", *EXACT)
    step = {n: W - at_work.base[n] for n, W in run(at_work, "average").models["global"].items()}
    merged.clear()
    run(trial("average", "free-rider-replay", *EXACT, "study.rounds=2"), "average")
    (first, _), (second, _) = merged
    assert adapter_norm(first[CULPRIT]) == 0
    narrow = [n for n, f in second[CULPRIT].items() if f.rank == f.B.shape[0]]
    assert narrow
    for name in narrow:
        torch.testing.assert_close(
            second[CULPRIT][name].product().reshape(step[name].shape), step[name], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(("scenario", "factor"), [("scaled-update", 10.0), ("sign-flip", -1.0)])
def test_an_update_attack_multiplies_the_attackers_update_alone(
    trial,
    merged: list,
    scenario: str,
    factor: float,  # type: ignore[type-arg]
) -> None:
    for name in ("clean", scenario):
        run(trial("average", name, *EXACT), "average")
    (honest, _), (attacked, _) = merged
    for site in SITES:
        times = factor if site == CULPRIT else 1.0
        for name, factors in honest[site].items():
            wanted: Tensor = times * factors.product()
            torch.testing.assert_close(attacked[site][name].product(), wanted, rtol=1e-4, atol=1e-6)


def test_noise_has_the_length_of_the_update_and_another_direction(trial, merged: list) -> None:  # type: ignore[type-arg]
    for name in ("clean", "noise"):
        run(trial("average", name, *EXACT), "average")
    (honest, _), (noisy, _) = merged
    assert adapter_norm(noisy[CULPRIT]) == pytest.approx(adapter_norm(honest[CULPRIT]), rel=1e-4)
    true, false = (
        torch.cat([u[CULPRIT][n].product().flatten().double() for n in sorted(u[CULPRIT])])
        for u in (honest, noisy)
    )
    assert abs(float(torch.cosine_similarity(true, false, dim=0))) < 0.2


@pytest.mark.parametrize("scenario", ["liar", "collusion"])
def test_a_liar_damns_all_but_its_allies(trial, scenario: str) -> None:
    gains = run(trial("rated", scenario), "rated").gains
    liars = {"liar": {CULPRIT}, "collusion": {"hcm", "nor"}}[scenario]
    lied = gains[gains["rater"].isin(liars)]
    assert (lied["gain"] == lied["candidate"].map(lambda c: 0.5 if c in liars else -0.5)).all()
    assert (lied["error"] == 0).all()
    assert not gains[~gains["rater"].isin(liars)]["gain"].isin([0.5, -0.5]).any()


def test_one_liar_costs_no_honest_site_its_weight(trial) -> None:
    rounds = run(trial("rated", "liar"), "rated").rounds
    assert (rounds["weight"] == 1.0).all()


def test_an_update_scaled_up_costs_the_attacker_its_weight(trial) -> None:
    rounds = run(trial("rated", "scaled-update", "training.steps=2"), "rated").rounds.set_index("site")
    assert rounds.loc[CULPRIT, "weight"] < 1e-3
    assert (rounds["weight"].drop(CULPRIT) == 1.0).all()


def test_the_culprit_moves_on_with_the_split() -> None:
    culprits = [SCENARIOS["liar"].turned(split).raters for split in range(7)]
    assert culprits == [(0,), (1,), (2,), (3,), (4,), (0,), (1,)]
    assert SCENARIOS["collusion"].turned(4).attackers == (4, 1)
    assert SCENARIOS["clean"].turned(3) == SCENARIOS["clean"]


def test_every_scenario_is_compared_with_one_that_has_no_fault() -> None:
    for scenario in SCENARIOS.values():
        beside = SCENARIOS[scenario.beside]
        assert not (beside.attack or beside.rater_fault or beside.absent or beside.late)
        assert beside.scanners == scenario.scanners or not scenario.attack


def test_raters_pay_for_the_candidates_they_fetch(trial) -> None:
    k = "rating.raters=2"
    plain = run(trial("average", "clean", k), "average").rounds
    rated = run(trial("rated", "clean", k), "rated").rounds
    more = rated["download_bytes"] - plain["download_bytes"]
    ups = plain["upload_bytes"]
    assert more.between(2 * ups.min(), 2 * ups.max()).all()


def test_plain_merging_clips_nothing_and_asks_nobody(trial, merged: list) -> None:  # type: ignore[type-arg]
    for method in ("plain", "average"):
        run(trial(method, "scaled-update", *EXACT, "judge.tolerance=0"), method)
    (_, plain), (_, clipped) = merged
    assert sum(plain.values()) == pytest.approx(1)
    assert clipped[CULPRIT] < plain[CULPRIT] / 3
    assert {site: clipped[site] for site in HONEST} == pytest.approx({site: plain[site] for site in HONEST})


def test_no_scenario_is_clean_under_another_name() -> None:
    assert len(set(SCENARIOS.values())) == len(SCENARIOS)


def _same_slices(a: Slices, b: Slices) -> bool:
    return a.images.shape == b.images.shape and all(
        torch.equal(x, y) for x, y in ((a.images, b.images), (a.masks, b.masks))
    )
