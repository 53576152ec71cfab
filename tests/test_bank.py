"""An update that comes late waits and counts later, once, discounted by its age; a fresh one takes its place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import report_files
from federation_files import (
    PARAMS_FILE,
    SITES,
    NewRun,
    delete,
    finish_round,
    objects,
    play_round,
    replace_update,
    trained,
)

from model.errors import RoundError
from model.factors import adapter_norm, sum_adapters
from model.merge import merge_shares
from model.package import unpack_adapter
from model.padding import unpad
from tasks.admit import admit_updates
from tasks.bank import aged_volumes, find_voices
from tasks.close import close_failed
from tasks.ledger import (
    FEDERATION,
    adapter_key,
    candidate_key,
    candidates_key,
    get_record,
    merge_key,
    merged_key,
    put_record,
    update_key,
)
from tasks.merge import merge_updates
from tasks.open import open_round
from tasks.rate import assigned_to, rate_candidates
from tasks.records import Candidates, FederationRecord, MergeRecord, Receipt
from tasks.settings import load_params
from tasks.study.run import _determining
from tasks.train import train_site
from tasks.workspace import Workspace

LATE, IN_TIME = "lakeside", ("hillcrest", "st-anna")
AVERAGE = "merge.mode=average"  # quicker, where ratings play no part


def played_late(ws: Workspace, number: int = 1) -> Workspace:
    """A closed round whose third update came when all was over."""
    play_round(ws, number, IN_TIME)
    train_site(ws, number, LATE)
    return ws


def test_a_hospital_that_was_away_for_three_rounds_comes_back_by_itself(start: NewRun) -> None:
    ws = start(AVERAGE, "federation.rounds=5")
    play_round(ws, 1)
    away = [play_round(ws, number, IN_TIME) for number in (2, 3, 4)]
    assert [close.missing for close in away] == [(LATE,)] * 3
    back = play_round(ws, 5)
    assert (back.degraded, back.missing) == (False, ())
    assert set(back.participants) == {LATE, *IN_TIME}


def admit(ws: Workspace, number: int, sites: tuple[str, ...] = IN_TIME) -> Candidates:
    """Admission of a round with fresh updates of these sites."""
    return admit_updates(trained(ws, number, sites), number)


def late(ws: Workspace, number: int) -> dict[str, int]:
    """Blind id → age of the late candidates."""
    return {blind: voice.age for blind, voice in find_voices(ws.store, number).items() if voice.age}


def late_hashes(ws: Workspace, record: Candidates) -> dict[str, int]:
    """sha256 → age of the late candidates."""
    hashes = {c.id: c.sha256 for c in record.candidates}
    return {hashes[blind]: age for blind, age in late(ws, record.round).items()}


def sent(ws: Workspace, number: int, site: str = LATE) -> str:
    """sha256 of what a site uploaded for a round."""
    return str(ws.store.sha256_of(adapter_key(site, number)))


def receipts(ws: Workspace, number: int) -> dict[str, Receipt]:
    record = get_record(ws.store, merge_key(number), MergeRecord)
    return {receipt.site: receipt for receipt in record.receipts}


def invite(ws: Workspace, change: Callable[[FederationRecord], FederationRecord]) -> FederationRecord:
    """Change who is a member from the next round on; gives the record as it was."""
    before = get_record(ws.store, FEDERATION, FederationRecord)
    put_record(ws.store, FEDERATION, change(before))
    return before


def without_the_late(federation: FederationRecord) -> FederationRecord:
    members = tuple(m for m in federation.members if m.site != LATE)
    return federation.model_copy(update={"members": members})


def test_an_update_that_came_late_is_a_candidate_of_the_next_round(start: NewRun) -> None:
    ws = played_late(start(AVERAGE))
    assert get_record(ws.store, candidates_key(1), Candidates).missing == (LATE,)
    record = admit(ws, 2)
    assert (len(record.candidates), record.quarantined, record.missing) == (3, (), ())
    assert late_hashes(ws, record) == {sent(ws, 1): 1}
    (blind,) = late(ws, record.round)
    assert unpad(ws.store.get(candidate_key(blind, 2))) == ws.store.get(adapter_key(LATE, 1))
    assert not any(site in ws.store.get(candidates_key(2)).decode() for site in SITES)
    assert len({candidate.n_bytes for candidate in record.candidates}) == 1


@pytest.mark.parametrize(("late_rounds", "ages"), [(2, [2]), (1, [])])
def test_an_update_waits_as_many_rounds_as_the_settings_say(
    start: NewRun, late_rounds: int, ages: list[int]
) -> None:
    ws = start(AVERAGE, f"merge.late_rounds={late_rounds}")
    for number in (1, 2):
        play_round(ws, number, IN_TIME)
    train_site(ws, 1, LATE)
    record = admit(ws, 3)
    assert list(late(ws, record.round).values()) == ages
    assert record.missing == (() if ages else (LATE,))


def test_without_a_bank_a_late_update_is_lost(start: NewRun) -> None:
    ws = played_late(start(AVERAGE, "merge.late_rounds=0"))
    record = admit(ws, 2)
    assert (len(record.candidates), late(ws, record.round), record.missing) == (2, {}, (LATE,))


def test_of_two_that_wait_the_younger_is_taken_and_the_older_never(start: NewRun) -> None:
    ws = start(AVERAGE, "merge.late_rounds=3")
    for number in (1, 2):
        play_round(ws, number, IN_TIME)
    for number in (1, 2):
        train_site(ws, number, LATE)
    assert late_hashes(ws, admit(ws, 3)) == {sent(ws, 2): 1}
    finish_round(ws, 3, IN_TIME)
    assert admit(ws, 4).missing == (LATE,)


def test_a_fresh_update_takes_the_place_of_one_that_waits_for_good(start: NewRun) -> None:
    ws = played_late(start(AVERAGE))
    record = admit(ws, 2, SITES)
    assert (len(record.candidates), late(ws, record.round)) == (3, {})
    assert sent(ws, 2) in {c.sha256 for c in record.candidates}
    finish_round(ws, 2)
    assert admit(ws, 3).missing == (LATE,)


def test_an_update_counts_once(start: NewRun) -> None:
    ws = played_late(start(AVERAGE))
    play_round(ws, 2, IN_TIME)
    assert receipts(ws, 2)[LATE].age == 1
    record = admit(ws, 3)
    assert (late(ws, record.round), record.missing) == ({}, (LATE,))


def test_a_site_that_is_late_in_every_round_counts_in_every_round_but_the_first(start: NewRun) -> None:
    ws = played_late(start(AVERAGE))
    for number in (2, 3):
        played_late(ws, number)
        assert late_hashes(ws, get_record(ws.store, candidates_key(number), Candidates)) == {
            sent(ws, number - 1): 1
        }


@pytest.mark.parametrize("fault", ["bytes", "passport", "torn"])
def test_a_late_update_that_fails_a_check_is_quarantined_once_with_the_round_it_was_made_for(
    start: NewRun, fault: str
) -> None:
    ws = played_late(start(AVERAGE))
    if fault == "bytes":
        flipped = bytearray(ws.store.get(adapter_key(LATE, 1)))
        flipped[-1] ^= 1
        ws.store.put(adapter_key(LATE, 1), bytes(flipped))
    elif fault == "passport":
        replace_update(ws, LATE, ws.store.get(adapter_key(LATE, 1)), plan_sha256="0" * 64)
    else:
        ws.store.put(update_key(LATE, 1), ws.store.seals.sealed(update_key(LATE, 1), b"{torn"))
    record = admit(ws, 2)
    assert (len(record.candidates), late(ws, record.round), record.missing) == (2, {}, ())
    (refusal,) = record.quarantined
    words = {"bytes": "its record announced", "passport": "plan_sha256 is", "torn": "no JSON for a Update"}
    assert refusal.site == LATE
    assert refusal.reason.startswith("its update of round 1: ")
    assert words[fault] in refusal.reason
    finish_round(ws, 2, IN_TIME)
    assert set(receipts(ws, 2)) == set(IN_TIME)
    again = admit(ws, 3)
    assert (again.quarantined, again.missing) == ((), (LATE,))


def test_a_fresh_update_that_is_quarantined_does_not_fall_back_on_the_bank(start: NewRun) -> None:
    ws = played_late(start(AVERAGE))
    trained(ws, 2, IN_TIME)
    ws.store.put(update_key(LATE, 2), b"{torn")
    record = admit_updates(ws, 2)
    assert (len(record.candidates), late(ws, record.round)) == (2, {})
    assert [refusal.site for refusal in record.quarantined] == [LATE]


def test_rounds_that_failed_lie_in_between_without_harm(start: NewRun) -> None:
    ws = start(AVERAGE)
    trained(ws, 1)
    close_failed(ws, 1, RoundError("the hub was off"))  # before admission
    record = admit(ws, 2, ("hillcrest",))
    assert late_hashes(ws, record) == {sent(ws, 1, site): 1 for site in (LATE, "st-anna")}
    close_failed(ws, 2, RoundError("the hub was off"))  # after it: what was a candidate has had its turn
    record = admit(ws, 3, ("hillcrest",))
    assert (late(ws, record.round), record.missing) == ({}, (LATE, "st-anna"))


def test_a_round_below_its_quorum_takes_what_has_reached_the_bank_since(start: NewRun) -> None:
    ws = start("federation.quorum=3")
    with pytest.raises(RoundError, match="2 updates were admitted, the quorum is 3; without: lakeside"):
        play_round(ws, 1, IN_TIME)
    close_failed(ws, 1, RoundError("too few"))
    assert admit(ws, 2).missing == (LATE,)
    train_site(ws, 1, LATE)
    assert late_hashes(ws, admit_updates(ws, 2)) == {sent(ws, 1): 1}


def test_a_late_update_below_the_quorum_leaves_its_site_among_the_missing(start: NewRun) -> None:
    ws = played_late(start(AVERAGE))
    admit(ws, 2, ())
    with pytest.raises(RoundError, match="1 update was admitted") as missed:
        merge_updates(ws, 2)
    assert close_failed(ws, 2, missed.value).missing == SITES


def test_who_was_not_invited_to_a_round_has_nothing_waiting_from_it(start: NewRun) -> None:
    ws = start(AVERAGE)
    before = invite(ws, without_the_late)
    play_round(ws, 1, IN_TIME)
    for key in (adapter_key, update_key):
        ws.store.put(key(LATE, 1), ws.store.get(key("hillcrest", 1)))
    put_record(ws.store, FEDERATION, before)
    record = admit(ws, 2)
    assert (record.quarantined, record.missing) == ((), (LATE,))


def test_nothing_waits_for_who_has_left(start: NewRun) -> None:
    ws = played_late(start(AVERAGE))
    invite(ws, without_the_late)
    record = admit(ws, 2)
    assert (len(record.candidates), late(ws, record.round), record.missing) == (2, {}, ())


def test_a_late_update_is_held_to_the_rank_and_volume_of_its_own_round(start: NewRun) -> None:
    ws = played_late(start(AVERAGE))
    was = open_round(ws, 1).member(LATE)
    now = was.model_copy(update={"rank": was.rank + 1, "train_slices": 10 * was.train_slices})
    invite(
        ws,
        lambda f: f.model_copy(update={"members": tuple(now if m.site == LATE else m for m in f.members)}),
    )
    play_round(ws, 2, IN_TIME)
    told = receipts(ws, 2)[LATE]
    (passport,) = (v.update for v in find_voices(ws.store, 2).values() if v.update.site == LATE)
    assert (passport.rank, told.train_slices, told.age) == (was.rank, was.train_slices, 1)


def test_volumes_and_shares_by_hand() -> None:
    slices, ages = {"a": 200, "b": 100, "c": 100}, {"a": 0, "b": 1, "c": 2}
    for volume, expected in (
        ("linear", (200, 50, 25)),
        ("sqrt", (200**0.5, 5, 2.5)),
        ("uniform", (1, 0.5, 0.25)),
    ):
        settings = load_params(PARAMS_FILE, (f"merge.volume={volume}", "merge.late_discount=0.5")).merge
        volumes = aged_volumes(slices, ages, settings)
        assert list(volumes.values()) == pytest.approx(expected, abs=1e-9)
        shares = merge_shares(dict.fromkeys(slices, 1.0), volumes, "renormalised")
        assert list(shares.values()) == pytest.approx([v / sum(expected) for v in expected], abs=1e-9)


def test_the_discount_is_in_shares_in_the_step_and_in_what_it_would_be_without(start: NewRun) -> None:
    ws = played_late(start(AVERAGE, "merge.late_discount=0.2"))
    play_round(ws, 2, IN_TIME)
    told = receipts(ws, 2)
    assert {site: receipt.share for site, receipt in told.items()} == pytest.approx(
        {"hillcrest": 2 / 3.2, "lakeside": 0.2 / 3.2, "st-anna": 1 / 3.2}, abs=1e-9
    )
    without = told["hillcrest"].without
    assert without is not None
    assert without.shares == pytest.approx({"lakeside": 0.2 / 1.2, "st-anna": 1 / 1.2}, abs=1e-6)
    keys = {site: adapter_key(site, 1 if site == LATE else 2) for site in SITES}
    exact = sum_adapters(
        (told[site].share * told[site].clipped_to, unpack_adapter(ws.store.get(key)))
        for site, key in keys.items()
    )
    step = unpack_adapter(ws.store.get(merged_key(2)))
    assert get_record(ws.store, merge_key(2), MergeRecord).step_norm == pytest.approx(
        adapter_norm(exact), rel=1e-4
    )
    assert step.keys() == exact.keys()
    assert [told[site].age for site in SITES] == [0, 1, 0]
    assert "It came 1 round late and counts for 20\u00a0% of its volume." in told[LATE].reason
    assert "late" not in told["hillcrest"].reason


def test_a_round_with_a_late_update_is_rated_and_judged_and_names_its_site_as_missing(start: NewRun) -> None:
    ws = played_late(start())
    record = admit(ws, 2)
    (blind,) = late(ws, record.round)
    assert set(rate_candidates(ws, 2, LATE).scores) == {c.id for c in record.candidates} - {blind}
    close = finish_round(ws, 2)
    assert (close.participants, close.missing, close.degraded) == (SITES, (LATE,), True)
    told = receipts(ws, 2)
    assert set(told[LATE].seen) == set(IN_TIME)
    assert set(told["hillcrest"].seen) == {LATE, "st-anna"}


def test_what_comes_fresh_after_admission_changes_neither_rows_nor_merge(start: NewRun) -> None:
    ws = played_late(start())
    record = admit(ws, 2)
    rows = {site: assigned_to(ws, record, site) for site in SITES}
    for site in SITES:
        rate_candidates(ws, 2, site)
    merge_updates(ws, 2)
    before = objects(ws.store)
    train_site(ws, 2, LATE)
    assert {site: assigned_to(ws, record, site) for site in SITES} == rows
    delete(
        ws.store, merge_key(2), merged_key(2), *(candidate_key(blind, 2) for blind in late(ws, record.round))
    )
    assert admit_updates(ws, 2) == record
    merge_updates(ws, 2)
    assert objects(ws.store, (adapter_key(LATE, 2), update_key(LATE, 2)).__contains__) == before


def test_a_fresh_copy_of_a_late_update_counts_as_fresh_and_the_late_one_as_late(start: NewRun) -> None:
    ws = played_late(start(AVERAGE))
    trained(ws, 2, IN_TIME)
    replace_update(ws, "st-anna", ws.store.get(adapter_key(LATE, 1)), 2)
    record = admit_updates(ws, 2)
    assert (len(record.candidates), len(late(ws, record.round))) == (3, 1)
    merge_updates(ws, 2)
    assert {site: receipt.age for site, receipt in receipts(ws, 2).items()} == {
        "hillcrest": 0,
        "lakeside": 1,
        "st-anna": 0,
    }


def test_a_late_update_sent_again_as_fresh_after_admission_stays_late(start: NewRun) -> None:
    ws = played_late(start(AVERAGE))
    admit(ws, 2)
    train_site(ws, 2, LATE)
    replace_update(ws, LATE, ws.store.get(adapter_key(LATE, 1)), 2)
    merge_updates(ws, 2)
    assert receipts(ws, 2)[LATE].age == 1


def test_receipts_from_before_there_was_a_bank_are_read_as_of_fresh_updates() -> None:
    told = report_files.receipts(1, report_files.SITES)[0].model_dump(exclude={"age"})
    assert Receipt.model_validate(told).age == 0


def test_the_bank_of_the_ledger_leaves_finished_cells_of_the_study_valid() -> None:
    texts = {_determining(load_params(PARAMS_FILE, (f"merge.late_rounds={n}",))) for n in (0, 2)}
    assert len(texts) == 1
