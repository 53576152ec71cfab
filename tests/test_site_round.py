"""A hospital that knows nothing but the ledger: what it does next, what it tells, and how long it is waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from federation_files import (
    SITES,
    NewRun,
    delete,
    finish_round,
    found,
    new_run,
    play_round,
    trained,
    use_store,
)

from model.errors import RoundError
from tasks.admit import admit_updates
from tasks.awaiting import GRACE_S, LEASE_S, REPAIR_S, Waiting, await_sites, look
from tasks.close import close_failed, close_round
from tasks.contact import Contact, keep_contact
from tasks.events import count_events
from tasks.hub_lease import HubLease, hold_lease
from tasks.ledger import (
    close_key,
    contact_key,
    evaluation_key,
    find_record,
    get_record,
    hub_lease_key,
    put_record,
    ratings_key,
    update_key,
    waiting_key,
)
from tasks.merge import merge_updates
from tasks.next_round import end_round, next_round, refuse_past
from tasks.open import open_round
from tasks.rate import rate_candidates
from tasks.records import Close, Evaluation
from tasks.settings import Environment, load_environment
from tasks.site_round import VERBS, current_round, next_duty, take_part
from tasks.standing import STEPS, round_standing
from tasks.store import Store
from tasks.train import train_site
from tasks.trust import with_seals
from tasks.visits import OVERDUE_S, leave_visit
from tasks.workspace import Workspace

SITE, *OTHERS = SITES


@pytest.fixture
def ws(start: NewRun) -> Workspace:
    """A founded federation of three hospitals, no round opened."""
    return start()


@pytest.fixture
def beside() -> Iterator[Callable[[Callable[[], object]], threading.Thread]]:
    """Starts work beside the test, and waits for it at the end."""
    threads: list[threading.Thread] = []

    def start(work: Callable[[], object]) -> threading.Thread:
        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join()


def test_the_ledger_alone_tells_a_site_what_is_next(ws: Workspace) -> None:
    open_round(ws, 1)
    assert next_duty(ws, 1, SITE) == "train"
    trained(ws)
    assert next_duty(ws, 1, SITE) == "wait"
    admit_updates(ws, 1)
    assert next_duty(ws, 1, SITE) == "rate"
    for site in SITES:
        rate_candidates(ws, 1, site)
    assert next_duty(ws, 1, SITE) == "wait"
    merge_updates(ws, 1)
    assert next_duty(ws, 1, SITE) == "judge"
    for site in SITES:
        VERBS["judge"](ws, 1, site)
    assert next_duty(ws, 1, SITE) == "wait"
    close_round(ws, 1)
    assert next_duty(ws, 1, SITE) == "adapt"
    VERBS["adapt"](ws, 1, SITE)
    assert next_duty(ws, 1, SITE) == "over"


def test_a_site_that_comes_after_admission_does_not_train_for_nothing(ws: Workspace) -> None:
    trained(ws, sites=OTHERS)
    admit_updates(ws, 1)
    assert next_duty(ws, 1, SITE) == "wait"


def test_a_stale_call_to_a_closed_round_only_adapts(ws: Workspace) -> None:
    play_round(ws, 1, OTHERS)
    assert take_part(ws, 1, SITE, patience_s=0) == ("adapt",)
    assert take_part(ws, 1, SITE, patience_s=0) == ()
    assert count_events(ws.site_home(SITE), "train") == 0
    assert find_record(ws.store, evaluation_key(SITE, 1), Evaluation) is not None


def test_a_round_that_failed_asks_the_sites_again(ws: Workspace) -> None:
    trained(ws, sites=[SITE])
    admit_updates(ws, 1)
    close_failed(ws, 1, RoundError("too few", "round 1", "retry"))
    assert next_duty(ws, 1, OTHERS[0]) == "train"
    assert next_round(ws) == 1


def test_a_round_that_is_not_open_and_a_stranger_are_refused(ws: Workspace) -> None:
    with pytest.raises(RoundError, match="round 1 is not open"):
        next_duty(ws, 1, SITE)
    with pytest.raises(RoundError, match="no round was opened"):
        current_round(ws)
    open_round(ws, 1)
    assert current_round(ws) == 1
    with pytest.raises(RoundError, match="does not take part"):
        next_duty(ws, 1, "stranger")


def test_hospitals_and_hub_that_meet_only_in_the_ledger_finish_the_round(
    ws: Workspace, beside: Callable[[Callable[[], object]], threading.Thread]
) -> None:
    open_round(ws, 1)
    for site in SITES:
        beside(lambda site=site: take_part(ws, 1, site, patience_s=120, poll_s=0.2))  # type: ignore[misc]
    for phase, then in (("train", admit_updates), ("rate", merge_updates), ("judge", close_round)):
        outlook = await_sites(ws, 1, phase, SITES)  # type: ignore[arg-type]
        assert outlook.answered == SITES
        then(ws, 1)
    assert await_sites(ws, 1, "adapt", SITES).answered == SITES
    close = get_record(ws.store, close_key(1), Close)
    assert (close.outcome, close.missing) == ("accepted", ())
    assert [count_events(ws.site_home(site), "train") for site in SITES] == [1, 1, 1]
    standing = round_standing(ws, 1)
    assert standing.word == "complete"
    assert {site.steps[-1] for site in standing.sites} == {"adapted"}
    assert {site.trainings for site in standing.sites} == {1}
    for site in standing.sites:
        assert tuple(site.times) == STEPS
        assert list(site.times.values()) == sorted(site.times.values())
    assert next_round(ws) == 1  # not versioned and reported yet
    end_round(ws, 1)
    assert next_round(ws) == 2


def test_a_site_without_patience_leaves_and_says_when_it_comes_again(ws: Workspace) -> None:
    open_round(ws, 1)
    assert take_part(ws, 1, SITE, patience_s=0, every_s=600) == ("train",)
    contact = get_record(ws.store, contact_key(SITE, 1), Contact)
    assert (contact.phase, contact.every_s, contact.trainings) == ("away", 600, 1)
    assert contact.sent_bytes > 0


def test_work_that_fails_is_told_and_the_bytes_of_all_attempts_add_up(ws: Workspace) -> None:
    open_round(ws, 1)

    def failing(ws: Workspace, number: int, site: str) -> None:
        train_site(ws, number, site)
        raise RoundError("power", "here", "retry")

    with pytest.raises(RoundError):
        take_part(ws, 1, SITE, patience_s=0, verbs={**VERBS, "train": failing})
    first = get_record(ws.store, contact_key(SITE, 1), Contact)
    assert first.phase == "failed"
    take_part(ws, 1, SITE, patience_s=0)
    again = get_record(ws.store, contact_key(SITE, 1), Contact)
    assert again.sent_bytes >= first.sent_bytes
    assert again.received_bytes > first.received_bytes
    assert count_events(ws.site_home(SITE), "train") == 1


def at(ws: Workspace, later_s: float, phase: str = "train") -> dict[str, str]:
    """Site → heading, as the hub would see it so many seconds after a wait began that began now."""
    now = ws.store.now()
    until = dict.fromkeys(SITES, now + timedelta(seconds=3600))

    real = type(ws.store).now
    type(ws.store).now = lambda self: real(self) + timedelta(seconds=later_s)  # type: ignore[method-assign]
    try:
        outlook = look(ws, 1, phase, until, now)  # type: ignore[arg-type]
    finally:
        type(ws.store).now = real  # type: ignore[method-assign]
    return {site: heading for heading, sites in vars(outlook).items() for site in sites}


def test_who_never_comes_and_who_falls_silent_is_not_awaited(ws: Workspace) -> None:
    open_round(ws, 1)
    with keep_contact(ws, 1, SITE) as line:
        line.say("train")
        assert at(ws, GRACE_S / 2)[OTHERS[0]] == "due"
        assert at(ws, GRACE_S + 5)[OTHERS[0]] == "dead"
        assert at(ws, LEASE_S / 2)[SITE] == "due"
        assert at(ws, LEASE_S + 5)[SITE] == "dead"
        assert at(ws, 3700)[SITE] == "late"


def test_who_comes_by_cron_and_who_may_be_repaired_is_awaited_longer(ws: Workspace) -> None:
    open_round(ws, 1)
    with keep_contact(ws, 1, SITE, every_s=900):
        pass
    with pytest.raises(ZeroDivisionError), keep_contact(ws, 1, OTHERS[0]):
        raise ZeroDivisionError
    assert at(ws, 1800)[SITE] == "due"
    assert at(ws, 1800 + LEASE_S + 5)[SITE] == "dead"
    assert at(ws, REPAIR_S)[OTHERS[0]] == "due"
    assert at(ws, REPAIR_S + LEASE_S + 5)[OTHERS[0]] == "dead"


def test_who_comes_by_itself_is_awaited_before_its_first_sign_in_a_round(ws: Workspace) -> None:
    leave_visit(ws, SITE, 900)
    open_round(ws, 1)
    assert at(ws, 1790)[SITE] == "due"
    assert at(ws, 1790)[OTHERS[0]] == "dead"
    assert at(ws, 1800 + OVERDUE_S + 5)[SITE] == "dead"


def test_who_comes_by_itself_has_its_absence_on_top_of_what_was_learned(ws: Workspace) -> None:
    trained(ws)
    finish_round(ws, 1)
    leave_visit(ws, SITE, 450)
    open_round(ws, 2)
    await_sites(ws, 2, "train", SITES, lambda _: [train_site(ws, 2, site) for site in SITES])
    until = get_record(ws.store, waiting_key(2), Waiting).until
    assert (until[SITE] - until[OTHERS[0]]).total_seconds() == pytest.approx(900, abs=60)


def test_who_was_called_long_ago_and_never_came_is_not_awaited_from_anew(ws: Workspace) -> None:
    open_round(ws, 1)
    called = ws.store.now() - timedelta(seconds=GRACE_S + 5)

    def nap(seconds: float) -> None:
        pytest.fail(f"waits {seconds} s for the dead")

    assert await_sites(ws, 1, "train", SITES, nap, called).dead == SITES


def test_a_failed_round_that_the_hub_tries_again_has_not_failed(ws: Workspace) -> None:
    open_round(ws, 1)
    close_failed(ws, 1, RoundError(f"without: {', '.join(SITES)}"))
    assert (round_standing(ws, 1).word, round_standing(ws, 1).detail) == (
        "failed",
        f"without: {', '.join(SITES)}",
    )
    with hold_lease(ws, 1):
        assert round_standing(ws, 1).word == "working"
    assert round_standing(ws, 1).word == "failed"


def test_an_answer_to_an_earlier_question_is_none(ws: Workspace) -> None:
    trained(ws)
    admit_updates(ws, 1)
    rate_candidates(ws, 1, SITE)
    assert at(ws, 0, "rate")[SITE] == "answered"
    delete(ws.store, update_key(SITE, 1))
    assert at(ws, 0, "train")[SITE] == "due"


def test_a_status_names_whom_the_hub_waits_for(ws: Workspace) -> None:
    trained(ws, sites=[SITE])
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        standing = round_standing(ws, 1)
        assert standing.word == "waiting"
        assert SITE not in standing.detail
        assert all(site in standing.detail for site in OTHERS)
        for site in OTHERS:
            train_site(ws, 1, site)

    assert await_sites(ws, 1, "train", SITES, nap).answered == SITES
    assert len(naps) == 1
    assert ws.store.exists(waiting_key(1))


def test_a_second_hub_turns_itself_away_when_the_first_gives_a_sign(ws: Workspace) -> None:
    put_record(ws.store, hub_lease_key(), HubLease(holder="alive", round=1))

    def nap(seconds: float) -> None:
        time.sleep(1.1)  # the store tells whole seconds
        put_record(ws.store, hub_lease_key(), HubLease(holder="alive", round=1))

    with (
        pytest.raises(RoundError, match="another process works for the hub, on round 1"),
        hold_lease(ws, 1, nap),
    ):
        pass


def test_the_lease_of_a_killed_hub_is_waited_for_and_that_of_one_that_ended_is_free(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_record(ws.store, hub_lease_key(), HubLease(holder="killed", round=1))
    monkeypatch.setattr("tasks.hub_lease.LEASE_S", 2.0)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        time.sleep(0.5)

    with hold_lease(ws, 1, nap):
        assert naps
    naps.clear()
    with hold_lease(ws, 1, nap):
        assert not naps


def test_a_hub_does_not_go_on_with_a_round_once_a_later_one_is_open(ws: Workspace) -> None:
    play_round(ws, 1, SITES)
    open_round(ws, 2)
    refuse_past(ws, 2)
    with pytest.raises(RoundError, match="round 1 cannot go on: round 2 has been opened since"):
        refuse_past(ws, 1)


def test_a_local_run_that_begins_again_at_round_1_takes_no_later_round_back(ws: Workspace) -> None:
    play_round(ws, 1, SITES)
    open_round(ws, 2)
    assert open_round(ws, 1).round == 1
    assert current_round(ws) == 2
    assert next_duty(ws, 1, SITE) == "over"
    assert take_part(ws, 1, SITE, patience_s=0) == ()


def test_no_round_closes_without_a_required_site(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    s3_environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_store(monkeypatch, s3_environment)
    ws = found(new_run(tmp_path_factory, tmp_path / "run", f"federation.required=[{SITE}]"))
    with pytest.raises(RoundError, match=f"required sites have not sent an update that was admitted: {SITE}"):
        play_round(ws, 1, OTHERS)
    assert next_duty(ws, 1, SITE) == "train"
    train_site(ws, 1, SITE)
    close = finish_round(ws, 1)
    assert SITE in close.participants


def test_a_round_whose_hub_was_killed_is_not_waited_for_by_whoever_reads_its_status(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_round(ws, 1)
    with hold_lease(ws, 1):
        assert round_standing(ws, 1).word == "working"
    standing = round_standing(ws, 1)
    assert (standing.word, "cardiofed round retry" in standing.detail) == ("failed", True)
    put_record(ws.store, hub_lease_key(), HubLease(holder="killed", round=1))
    assert round_standing(ws, 1).word == "working"
    monkeypatch.setattr("tasks.hub_lease.LEASE_S", 0.0)
    assert round_standing(ws, 1).word == "failed"


def test_hub_and_hospital_that_wait_ride_out_a_store_that_is_away(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.contact.RENEWAL_S", 3600.0)
    trained(ws)
    port = "http://127.0.0.1:9"
    away = with_seals(Store(load_environment().model_copy(update={"s3_endpoint": port})), ws.root)
    here = ws.store
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        vars(ws)["store"] = away if len(naps) == 1 else here
        if len(naps) == 3:
            admit_updates(ws, 1)

    take_part(ws, 1, SITE, patience_s=5, sleep=nap)
    assert naps[:3] == [2.0, 5.0, 2.0]
    assert ws.store.exists(ratings_key(SITE, 1))
