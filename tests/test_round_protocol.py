"""The round's promises at the ledger, on a real store: what is there is not done again, and nothing is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from federation_files import (
    SITES,
    NewRun,
    delete,
    finish_round,
    objects,
    play_round,
    replace_update,
    trained,
)

from model.errors import ConfigError, DiskError, IntegrityError, ObjectMissingError, RoundError
from model.factors import Factors, adapter_norm, fold, sum_adapters
from model.package import pack_adapter, unpack_adapter
from model.padding import unpad
from model.rating import measure_aspects
from tasks.adapt import adapt_site
from tasks.admit import admit_updates
from tasks.close import close_failed, close_round
from tasks.enrol import found_federation
from tasks.events import count_events, log_event
from tasks.files import sha256_bytes
from tasks.history import read_history
from tasks.judge import judge_merged
from tasks.ledger import (
    FEDERATION,
    adapter_key,
    candidate_key,
    candidates_key,
    close_key,
    evaluation_key,
    get_record,
    merge_key,
    merged_key,
    plan_key,
    put_record,
    ratings_key,
    update_key,
    verdict_key,
)
from tasks.merge import merge_updates
from tasks.mirror import keep_round
from tasks.open import open_round
from tasks.rate import ScorePanel, rate_candidates
from tasks.records import (
    Candidates,
    Close,
    Estimate,
    FederationRecord,
    MergeRecord,
    Plan,
    Rating,
    Ratings,
    Receipt,
    Score,
    Step,
    Update,
    Verdict,
)
from tasks.study.members import read_members
from tasks.study.scenarios import SCENARIOS
from tasks.train import train_site
from tasks.weights import base_weights, round_weights
from tasks.workspace import Workspace


def sha256_of(ws: Workspace, key: str) -> str:
    return sha256_bytes(ws.store.get(key))


def receipts(ws: Workspace, number: int = 1) -> dict[str, Receipt]:
    record = get_record(ws.store, merge_key(number), MergeRecord)
    return {receipt.site: receipt for receipt in record.receipts}


def random_like(data: bytes, size: float, seed: int = 0) -> bytes:
    """A correctly packaged update of random factors."""
    generator = torch.Generator().manual_seed(seed)
    layers = unpack_adapter(data)
    return pack_adapter(
        {
            name: Factors(
                size * torch.randn(f.B.shape, generator=generator),
                torch.randn(f.A.shape, generator=generator),
            )
            for name, f in layers.items()
        },
        "int8",
    )


def poisoned(ws: Workspace, site: str = "lakeside") -> Workspace:
    """A trained round in which one update is random and large, and announced as if it were not."""
    trained(ws)
    replace_update(ws, site, random_like(ws.store.get(adapter_key(site, 1)), 0.5))
    return ws


def vote(ws: Workspace, gains: dict[str, float]) -> None:
    """The same verdict from every site."""
    merge = get_record(ws.store, merge_key(1), MergeRecord)
    scores = {fraction: Score(gain=gain, standard_error=0.0, slices=4) for fraction, gain in gains.items()}
    for site in SITES:
        verdict = Verdict(
            round=1, site=site, merged_sha256=merge.merged_sha256, baseline_dice=0.7, gains=scores
        )
        put_record(ws.store, verdict_key(site, 1), verdict)


def merged(ws: Workspace) -> Workspace:
    """A trained, admitted, rated and merged round."""
    admit_updates(trained(ws), 1)
    for site in SITES:
        rate_candidates(ws, 1, site)
    merge_updates(ws, 1)
    return ws


def test_a_round_leaves_exactly_the_keys_of_the_protocol(start: NewRun) -> None:
    ws = start()
    play_round(ws, 1)
    for site in SITES:
        adapt_site(ws, 1, site)
    plan = get_record(ws.store, plan_key(1), Plan)
    blind = get_record(ws.store, candidates_key(1), Candidates).candidates
    hub = ("plan.json", "candidates.json", "merge.json", "close.json")
    adapters = ("merged.safetensors", "rest.safetensors")
    of_site = ("adapter.safetensors", "update.json", "ratings.json", "verdict.json", "evaluation.json")
    assert set(objects(ws.store)) == {
        "global/federation.json",
        "global/current.json",
        "global/roster.json",
        "hub/rounds/0001/senders.json",
        f"global/base/{plan.base.sha256}.safetensors",
        *(f"global/rounds/0001/{name}" for name in (*hub, *adapters)),
        *(f"global/rounds/0001/candidates/{candidate.id}.safetensors" for candidate in blind),
        *(f"sites/{site}/card.json" for site in SITES),
        *(f"sites/{site}/rounds/0001/{name}" for site in SITES for name in of_site),
    }


def test_a_phase_run_twice_works_once_and_leaves_the_same_bytes(start: NewRun) -> None:
    ws = start()
    play_round(ws, 1)
    for site in SITES:
        adapt_site(ws, 1, site)
    before = objects(ws.store)
    play_round(ws, 1)
    for site in SITES:
        adapt_site(ws, 1, site)
    assert objects(ws.store) == before
    for phase in ("open", "admit", "merge", "close"):
        assert (count_events(ws.hub_home, phase), count_events(ws.hub_home, phase, "reused")) == (1, 1)
    for phase in ("train", "rate", "judge", "adapt"):
        for site in SITES:
            home = ws.site_home(site)
            assert (count_events(home, phase), count_events(home, phase, "reused")) == (1, 1)


def test_an_update_that_was_lost_is_trained_again_by_its_site_alone_to_the_same_bytes(
    start: NewRun,
) -> None:
    ws = trained(start())
    before = ws.store.get(adapter_key("lakeside", 1))
    delete(ws.store, update_key("lakeside", 1), adapter_key("lakeside", 1))
    trained(ws)
    assert ws.store.get(adapter_key("lakeside", 1)) == before
    assert [count_events(ws.site_home(site), "train") for site in SITES] == [1, 2, 1]


def test_a_site_writes_a_record_of_its_own_anew_when_it_is_broken(start: NewRun) -> None:
    ws = trained(start())
    ws.store.put(update_key("lakeside", 1), b"{torn")
    train_site(ws, 1, "lakeside")
    assert get_record(ws.store, update_key("lakeside", 1), Update).site == "lakeside"


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "damaged"])
def test_an_adapter_that_the_store_lost_is_uploaded_again_without_training(start: NewRun, lost: bool) -> None:
    ws = trained(start())
    before, key = objects(ws.store), adapter_key("lakeside", 1)
    delete(ws.store, key) if lost else ws.store.put(key, b"damaged")
    train_site(ws, 1, "lakeside")
    assert objects(ws.store) == before
    assert count_events(ws.site_home("lakeside"), "train") == 1


def test_an_adapter_that_store_and_site_lost_is_trained_again_to_the_same_bytes(start: NewRun) -> None:
    ws = trained(start())
    before = ws.store.get(adapter_key("lakeside", 1))
    delete(ws.store, adapter_key("lakeside", 1))
    (ws.site_home("lakeside") / "updates" / "0001.safetensors").write_bytes(b"damaged")
    train_site(ws, 1, "lakeside")
    assert ws.store.get(adapter_key("lakeside", 1)) == before
    assert count_events(ws.site_home("lakeside"), "train") == 2


def test_a_plan_is_never_rewritten_though_members_have_changed(start: NewRun) -> None:
    ws = start()
    first = open_round(ws, 1)
    fewer = FederationRecord(base=first.base, members=first.members[:2])
    put_record(ws.store, FEDERATION, fewer)
    assert open_round(ws, 1) == first


def test_a_bucket_with_another_federation_is_refused_and_left_as_it_is(start: NewRun) -> None:
    ws = start()
    base = open_round(ws, 1).base
    before = objects(ws.store)
    other = Workspace(ws.root, ws.params.model_copy(update={"seed": 99}))
    for work in (lambda: open_round(other, 1), lambda: found_federation(other, base)):
        with pytest.raises(RoundError, match="this bucket holds another federation") as refused:
            work()
        assert refused.value.where == plan_key(1)
        assert "CARDIOFED_S3_BUCKET" in refused.value.mend
    assert objects(ws.store) == before


def test_a_round_of_another_base_is_not_adopted(start: NewRun) -> None:
    ws = start()
    plan = open_round(ws, 1)
    other = plan.model_copy(update={"base": plan.base.model_copy(update={"sha256": "0" * 64})})
    put_record(ws.store, plan_key(1), other)
    with pytest.raises(RoundError, match="this bucket holds another federation"):
        open_round(ws, 1)


def test_a_quorum_above_the_number_of_sites_is_refused_before_anything_is_published(start: NewRun) -> None:
    with pytest.raises(ConfigError, match="the quorum is 4, and there are 3 sites") as refused:
        start("federation.quorum=4")
    assert refused.value.where == "federation.quorum"


def test_an_event_that_cannot_be_written_is_a_fault_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(DiskError, match="cannot write an event"):
        log_event(tmp_path, "train", 1, "done")


def test_a_mirror_that_cannot_be_written_is_a_fault_of_the_disk(start: NewRun) -> None:
    ws = start()
    open_round(ws, 1)
    ws.federation.write_bytes(b"in the way")
    with pytest.raises(DiskError, match="cannot keep the files of round 1"):
        keep_round(ws, 1)


def test_a_round_cannot_open_before_the_last_one_ended(start: NewRun) -> None:
    ws = trained(start())
    with pytest.raises(RoundError, match="round 1 has not ended"):
        open_round(ws, 2)


def test_the_next_round_starts_from_the_closed_model(start: NewRun) -> None:
    ws = start()
    close = play_round(ws, 1)
    plan = open_round(ws, 2)
    assert close.outcome == "accepted"
    assert plan.steps == close.steps == (Step(round=1, sha256=sha256_of(ws, merged_key(1)), fraction=1.0),)
    home = ws.site_home("st-anna")
    started, base = round_weights(ws.store, plan, home), base_weights(ws.store, plan.base, home)
    expected = fold(base, unpack_adapter(ws.store.get(merged_key(1))))
    assert all(torch.equal(started[name], expected[name]) for name in base)
    assert any(not torch.equal(started[name], base[name]) for name in base)


def test_a_rejected_step_leaves_the_model_and_the_next_round_opens_from_the_earlier_one(
    start: NewRun,
) -> None:
    ws = merged(start())
    vote(ws, {"1.0": -0.2, "0.5": -0.1, "0.25": -0.05})
    close = close_round(ws, 1)
    assert (close.outcome, close.fraction, close.steps) == ("rejected", 0.0, ())
    assert open_round(ws, 2).steps == ()
    assert play_round(ws, 2).outcome in ("accepted", "stepped_back", "rejected")


@pytest.mark.parametrize(
    ("gains", "fraction"),
    [
        ({"1.0": -0.2, "0.5": 0.01, "0.25": 0.01}, 0.5),
        ({"1.0": -0.2, "0.5": -0.1, "0.25": 0.0}, 0.25),
    ],
)
def test_a_step_back_publishes_that_part_of_the_step(
    start: NewRun, gains: dict[str, float], fraction: float
) -> None:
    ws = merged(start())
    vote(ws, gains)
    close = close_round(ws, 1)
    assert (close.outcome, close.fraction) == ("stepped_back", fraction)
    plan = open_round(ws, 2)
    home = ws.site_home("st-anna")
    started, base = round_weights(ws.store, plan, home), base_weights(ws.store, plan.base, home)
    expected = fold(base, unpack_adapter(ws.store.get(merged_key(1))), fraction)
    assert all(torch.equal(started[name], expected[name]) for name in base)


def test_a_step_that_nobody_judged_is_not_published(start: NewRun) -> None:
    ws = merged(start())
    with pytest.raises(
        RoundError, match="0 sites judged the merged step, the quorum is 2; without: hillcrest"
    ):
        close_round(ws, 1)
    assert not ws.store.exists(close_key(1))


def test_a_round_without_one_site_is_degraded_and_says_so(start: NewRun) -> None:
    ws = start()
    present = ("hillcrest", "st-anna")
    close = play_round(ws, 1, present)
    assert close.degraded
    assert (close.participants, close.missing) == (present, ("lakeside",))
    assert get_record(ws.store, candidates_key(1), Candidates).missing == ("lakeside",)


def test_a_site_that_did_not_rate_is_named_as_missing(start: NewRun) -> None:
    ws = start()
    admit_updates(trained(ws), 1)
    for site in SITES[:2]:
        rate_candidates(ws, 1, site)
    merge_updates(ws, 1)
    for site in SITES:
        judge_merged(ws, 1, site)
    assert close_round(ws, 1).missing == ("st-anna",)


def test_a_missed_quorum_ends_in_a_failed_record_and_the_same_round_completes_later(start: NewRun) -> None:
    ws = start("federation.quorum=3")
    admit_updates(trained(ws, 1, SITES[:2]), 1)
    with pytest.raises(RoundError, match=r"2 updates were admitted, the quorum is 3; without: st-anna"):
        merge_updates(ws, 1)
    with pytest.raises(RoundError) as missed:
        merge_updates(ws, 1)
    failed = close_failed(ws, 1, missed.value)
    assert (failed.outcome, failed.degraded, failed.missing) == ("failed", True, ("st-anna",))
    assert get_record(ws.store, close_key(1), Close) == failed
    train_site(ws, 1, "st-anna")
    close = finish_round(ws, 1)
    assert (close.outcome != "failed", close.degraded, close.missing) == (True, False, ())
    assert [count_events(ws.site_home(site), "train") for site in SITES] == [1, 1, 1]


@pytest.mark.parametrize(
    ("mode", "raters", "said"),
    [("rated", SITES[:2], "rated the updates"), ("shadow", SITES[:2], "rated"), ("rated", SITES, "judged")],
)
def test_too_few_ratings_or_verdicts_fail_the_round_and_it_completes_later_without_repeats(
    start: NewRun, mode: str, raters: tuple[str, ...], said: str
) -> None:
    ws = trained(start("federation.quorum=3", f"merge.mode={mode}"))
    with pytest.raises(RoundError, match=rf"2 sites {said}.*, the quorum is 3; without: st-anna") as missed:
        finish_round(ws, 1, raters, judges=SITES[:2])
    failed = close_failed(ws, 1, missed.value)
    assert (failed.outcome, failed.participants, failed.missing) == ("failed", SITES, ("st-anna",))
    close = finish_round(ws, 1)
    assert (close.outcome != "failed", close.degraded) == (True, False)
    for verb in ("train", "rate", "judge"):
        assert [count_events(ws.site_home(site), verb) for site in SITES] == [1, 1, 1]
    assert [count_events(ws.hub_home, verb) for verb in ("open", "admit", "merge")] == [1, 1, 1]


def test_a_rating_that_comes_after_the_close_changes_nothing(start: NewRun) -> None:
    ws = start()
    admit_updates(trained(ws), 1)
    for site in SITES[:2]:
        rate_candidates(ws, 1, site)
    merge_updates(ws, 1)
    for site in SITES:
        judge_merged(ws, 1, site)
    close = close_round(ws, 1)
    before = objects(ws.store)
    assert finish_round(ws, 1) == close
    assert set(objects(ws.store).items()) - set(before.items()) == {
        (ratings_key("st-anna", 1), ws.store.sha256_of(ratings_key("st-anna", 1)))
    }


def test_an_update_that_changes_after_admission_counts_as_it_was_admitted(start: NewRun) -> None:
    ws = start()
    admit_updates(trained(ws), 1)
    sent = unpack_adapter(ws.store.get(adapter_key("lakeside", 1)))
    replace_update(ws, "lakeside", random_like(ws.store.get(adapter_key("lakeside", 1)), 0.1))
    close = finish_round(ws, 1)
    assert (close.participants, close.missing) == (SITES, ())
    receipts = {r.site: r for r in get_record(ws.store, merge_key(1), MergeRecord).receipts}
    assert receipts["lakeside"].norm == pytest.approx(adapter_norm(sent), rel=1e-4)


def test_payloads_that_changed_after_their_record_are_refused(start: NewRun) -> None:
    ws = merged(start())
    ws.store.put(merged_key(1), random_like(ws.store.get(merged_key(1)), 0.1))
    with pytest.raises(IntegrityError):
        judge_merged(ws, 1, "st-anna")


@pytest.mark.parametrize("broken", [b"\x80\x04pickle", b'{"round": 1e999}'])
def test_broken_ratings_verdicts_and_evaluations_of_one_site_do_not_stop_the_others(
    start: NewRun, broken: bytes
) -> None:
    ws = start()
    admit_updates(trained(ws), 1)
    for site in SITES[:2]:
        rate_candidates(ws, 1, site)
    ws.store.put(ratings_key("st-anna", 1), broken)
    merge_updates(ws, 1)
    for site in SITES[:2]:
        judge_merged(ws, 1, site)
    ws.store.put(verdict_key("st-anna", 1), broken)
    ws.store.put(evaluation_key("st-anna", 1), broken)
    close = close_round(ws, 1)
    assert (close.judges, close.missing) == (SITES[:2], ("st-anna",))


def test_the_mirror_leaves_out_what_a_site_wrote_and_nobody_can_read(start: NewRun) -> None:
    ws = start()
    play_round(ws, 1)
    adapt_site(ws, 1, "hillcrest")
    ws.store.put(evaluation_key("st-anna", 1), b"{torn")
    keep_round(ws, 1)
    (entry,) = read_history(ws.rounds)
    assert set(entry.evaluations) == {"hillcrest"}
    assert set(entry.updates) == set(SITES)
    assert [p.name for p in (ws.federation / "personal").iterdir()] == ["hillcrest.safetensors"]


def test_a_gain_beyond_what_dice_can_be_is_no_rating(start: NewRun) -> None:
    ws = start()
    admit_updates(trained(ws), 1)
    for site in SITES:
        rate_candidates(ws, 1, site)
    said = get_record(ws.store, ratings_key("st-anna", 1), Ratings)
    beyond = {"mean": Estimate(gain=0.0, standard_error=0.0).model_copy(update={"gain": -1e30})}
    lie = {blind: rating.model_copy(update={"aspects": beyond}) for blind, rating in said.scores.items()}
    put_record(ws.store, ratings_key("st-anna", 1), said.model_copy(update={"scores": lie}))
    assert set(merge_updates(ws, 1).ratings_sha256) == {"hillcrest", "lakeside"}


def blind_names(ws: Workspace) -> dict[str, str]:
    """Site → the blind id of its update in round 1."""
    ids = {c.sha256: c.id for c in get_record(ws.store, candidates_key(1), Candidates).candidates}
    return {site: ids[get_record(ws.store, update_key(site, 1), Update).adapter_sha256] for site in SITES}


def test_a_site_rates_what_it_is_assigned_and_downloads_nothing_else(start: NewRun) -> None:
    ws = start("rating.raters=1")
    record = admit_updates(trained(ws), 1)
    names, hashes = blind_names(ws), {c.id: c.sha256 for c in record.candidates}
    for site in SITES:
        assigned = record.assigned[names[site]]
        assert len(assigned) == 1 and names[site] not in assigned
        assert set(rate_candidates(ws, 1, site).scores) == set(assigned)
        kept = {path.stem for path in (ws.site_home(site) / "cache").iterdir()}
        assert kept & set(hashes.values()) == {hashes[blind] for blind in assigned}
    assert [len(receipt.seen) for receipt in merge_updates(ws, 1).receipts] == [1, 1, 1]


def test_a_rating_that_nobody_asked_for_is_not_heard(start: NewRun) -> None:
    ws = start("rating.raters=1")
    admit_updates(trained(ws), 1)
    for site in SITES:
        rate_candidates(ws, 1, site)
    before = {receipt.site: receipt.seen for receipt in merge_updates(ws, 1).receipts}
    said = get_record(ws.store, ratings_key("st-anna", 1), Ratings)
    worst = Rating(aspects={"mean": Estimate(gain=-1.0, standard_error=0.0)}, cases=9)
    forged = {blind: worst for blind in blind_names(ws).values() if blind not in said.scores}
    assert len(forged) == 2  # its own, and the one that another site was asked about
    put_record(ws.store, ratings_key("st-anna", 1), said.model_copy(update={"scores": said.scores | forged}))
    merge_updates(ws, 1)
    assert {site: receipt.seen for site, receipt in receipts(ws).items()} == before


def test_a_site_without_an_admitted_update_rates_nothing_and_makes_no_quorum(start: NewRun) -> None:
    ws = trained(start(), 1, SITES[:2])
    admit_updates(ws, 1)
    assert rate_candidates(ws, 1, "st-anna").scores == {}
    rate_candidates(ws, 1, "hillcrest")
    with pytest.raises(RoundError, match="1 site rated the updates, the quorum is 2; without: lakeside"):
        merge_updates(ws, 1)


def test_a_site_rates_with_the_slices_and_cases_of_the_study(start: NewRun) -> None:
    ws = start()
    members = read_members(ws.root / "cohort", SCENARIOS["clean"], ws.params, seed=1)
    plan = open_round(ws, 1)
    for site in SITES:
        panel = ScorePanel(ws, plan, site).panel
        assert all(
            torch.equal(getattr(panel, k), getattr(members[site].panel, k))
            for k in ("images", "masks", "case")
        )


def test_a_rating_holds_every_aspect_with_its_error_over_cases(start: NewRun) -> None:
    ws = start()
    admit_updates(trained(ws), 1)
    plan, home = open_round(ws, 1), ws.site_home("hillcrest")
    (blind, rating), *_ = rate_candidates(ws, 1, "hillcrest").scores.items()
    weights, panel = round_weights(ws.store, plan, home), ScorePanel(ws, plan, "hillcrest")
    step = unpack_adapter(unpad(ws.store.get(candidate_key(blind, 1))))
    before, after = panel.scores(weights), panel.scores(fold(weights, step))
    found = measure_aspects(before, after, panel.panel.case)
    assert set(rating.aspects) == set(found)
    for aspect, estimate in rating.aspects.items():
        assert (estimate.gain, estimate.standard_error) == pytest.approx(
            (found[aspect].gain, found[aspect].error), abs=6e-5
        )
    assert rating.cases == len(set(panel.panel.case.tolist()))


def test_a_receipt_says_what_the_merge_without_the_update_would_have_been(start: NewRun) -> None:
    ws = merged(start("merge.mode=average"))
    shares = receipts(ws)["lakeside"].without
    assert shares is not None
    assert shares.shares == pytest.approx({"hillcrest": 2 / 3, "st-anna": 1 / 3})
    updates = {site: unpack_adapter(ws.store.get(adapter_key(site, 1))) for site in SITES}
    clips = {site: receipt.clipped_to for site, receipt in receipts(ws).items()}
    whole = sum_adapters((receipts(ws)[site].share * clips[site], updates[site]) for site in SITES)
    rest = sum_adapters((k * clips[site], updates[site]) for site, k in shares.shares.items())
    change = adapter_norm(sum_adapters([(1.0, whole), (-1.0, rest)])) / adapter_norm(whole)
    assert shares.change == pytest.approx(change, abs=1e-4)


def test_what_all_sites_may_read_of_a_merge_holds_no_blind_name(start: NewRun) -> None:
    ws = merged(start())
    text = ws.store.get(merge_key(1)).decode()
    assert not any(blind in text for blind in blind_names(ws).values())
    assert '"seen":{"' in text.replace(" ", "")


def test_a_site_cannot_make_its_update_count_for_more_by_announcing_more_slices(start: NewRun) -> None:
    ws = trained(start("merge.mode=average"))
    replace_update(ws, "lakeside", ws.store.get(adapter_key("lakeside", 1)), train_slices=1_000_000)
    finish_round(ws, 1)
    assert receipts(ws)["lakeside"].share == pytest.approx(0.25)


def test_a_poisoned_update_gets_next_to_no_weight_when_rated(start: NewRun) -> None:
    ws = poisoned(start())
    finish_round(ws, 1)
    given = {site: receipt.used_weight for site, receipt in receipts(ws).items()}
    assert given["lakeside"] < 0.05
    assert min(given["hillcrest"], given["st-anna"]) > 0.8
    assert receipts(ws)["lakeside"].share < 0.02


def test_a_poisoned_update_is_merged_when_the_defence_is_off(start: NewRun) -> None:
    ws = poisoned(start("merge.mode=average", "merge.clip=1000000"))
    close = finish_round(ws, 1)
    assert receipts(ws)["lakeside"].share == pytest.approx(0.25)
    assert close.gains["1.0"] < -0.1


def test_average_mode_rates_nothing(start: NewRun) -> None:
    ws = start("merge.mode=average")
    finish_round(trained(ws), 1)
    record = get_record(ws.store, merge_key(1), MergeRecord)
    assert (record.ratings_sha256, record.shadow_distance) == ({}, None)
    assert all(receipt.gain is None for receipt in record.receipts)


def test_shadow_mode_takes_the_average_step_and_says_how_far_rating_would_have_been(start: NewRun) -> None:
    ws = poisoned(start("merge.mode=shadow", "merge.clip=1000000"))
    finish_round(ws, 1)
    record = get_record(ws.store, merge_key(1), MergeRecord)
    lakeside = receipts(ws)["lakeside"]
    assert lakeside.used_weight == 1.0
    assert lakeside.share == pytest.approx(0.25)
    assert lakeside.rated_weight < 0.05
    assert record.shadow_distance is not None and record.shadow_distance > 0.5
    updates = {site: unpack_adapter(ws.store.get(adapter_key(site, 1))) for site in SITES}
    average = sum_adapters((receipts(ws)[site].share, updates[site]) for site in SITES)
    step = unpack_adapter(ws.store.get(merged_key(1)))
    assert adapter_norm(sum_adapters([(1.0, step), (-1.0, average)])) < 0.02 * adapter_norm(average)


def test_the_papers_form_shortens_the_step_and_ours_does_not(start: NewRun) -> None:
    shares = {}
    for form in ("paper", "renormalised"):
        ws = poisoned(start(f"merge.form={form}"))
        finish_round(ws, 1)
        shares[form] = sum(receipt.share for receipt in receipts(ws).values())
        break_up(ws)
    assert shares["renormalised"] == pytest.approx(1, abs=1e-4)
    assert shares["paper"] == pytest.approx(0.75, abs=0.06)


def break_up(ws: Workspace) -> None:
    """Forget a run, here and in the store."""
    shutil.rmtree(ws.root)
    delete(ws.store, *(info.key for info in ws.store.list("")))


def test_rating_before_admission_says_that_nothing_is_there(start: NewRun) -> None:
    ws = trained(start())
    with pytest.raises(ObjectMissingError):
        rate_candidates(ws, 1, "st-anna")
