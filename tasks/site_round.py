"""What a site has to do next in a round, read from the ledger alone; and doing it, one duty after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal

from model.errors import ObjectMissingError, RoundError
from tasks.adapt import adapt_site
from tasks.answers import find_answer
from tasks.audit.watch import watched
from tasks.contact import keep_contact
from tasks.events import count_events
from tasks.judge import judge_merged
from tasks.ledger import (
    candidates_key,
    close_key,
    current_key,
    evaluation_key,
    find_record,
    get_record,
    merge_key,
    merged_key,
    plan_key,
    ratings_key,
    update_key,
    verdict_key,
)
from tasks.outage import ride_out
from tasks.quorum import lacks_updates
from tasks.rate import rate_candidates
from tasks.records import (
    Candidates,
    Close,
    Current,
    Evaluation,
    Plan,
    Ratings,
    Update,
    Verdict,
    model_sha256,
)
from tasks.train import train_site
from tasks.workspace import Workspace

Duty = Literal["train", "rate", "judge", "adapt"]
Next = Duty | Literal["wait", "over"]

POLL_MAX_S = 15.0
"""The longest pause between two looks."""

Verb = Callable[[Workspace, int, str], object]
VERBS: Mapping[Duty, Verb] = {
    "train": watched(train_site),
    "rate": watched(rate_candidates),
    "judge": watched(judge_merged),
    "adapt": watched(adapt_site),
}


def current_round(ws: Workspace) -> int:
    """The round that was opened last.

    Args:
        ws: any workspace that may read the ledger.

    Returns:
        Its number, from 1.

    Raises:
        RoundError: none was ever opened.
    """
    found = find_record(ws.store, current_key(), Current)
    if found is None:
        raise RoundError("no round was opened yet", current_key(), "wait for the hub to open one")
    return found.round


def next_duty(ws: Workspace, number: int, site: str, plan: Plan | None = None) -> Next:
    """What the site owes the round.

    Args:
        ws: the site's workspace.
        number: of the round.
        site: whose duty.
        plan: of the round, which never changes; read from the ledger when left out.

    Returns:
        A duty; ``wait`` when the hub or other sites come first; ``over`` when nothing is left to do.

    Raises:
        RoundError: the round is not open, or the site is not invited.
    """
    plan = plan or _read_plan(ws, number)
    plan.member(site)
    if current_round(ws) > number:
        return "over"  # what it missed waits in the next round's plan
    close = find_record(ws.store, close_key(number), Close)
    if close is not None and close.outcome != "failed":
        return "over" if _has_adapted(ws, plan, close, site) else "adapt"
    if find_answer(ws.store, update_key(site, number), Update) is None:
        candidates = find_record(ws.store, candidates_key(number), Candidates)
        return "train" if candidates is None or lacks_updates(plan, candidates) else "wait"
    if not ws.store.exists(candidates_key(number)):
        return "wait"
    if plan.params.merge.mode != "average" and not _has_rated(ws, number, site):
        return "rate"
    if ws.store.exists(merge_key(number)) and not _has_judged(ws, number, site):
        return "judge"
    return "wait"


def take_part(
    ws: Workspace,
    number: int,
    site: str,
    patience_s: float,
    verbs: Mapping[Duty, Verb] = VERBS,
    every_s: float = 0.0,
    poll_s: float = 2.0,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Duty, ...]:
    """Do what the round asks of the site until it is over.

    Args:
        ws: the site's workspace.
        number: of the round.
        site: that takes part.
        patience_s: how long to wait for the hub and the others in one go; 0 leaves at once when there is nothing to do.
        verbs: how duties are done.
        every_s: how often the site comes by itself; 0 when the hub calls it.
        poll_s: between looks into the ledger, at first; a look costs bytes, so they become rarer in a long wait.
        sleep: takes seconds.

    Returns:
        The duties that were done, in order.

    Raises:
        RoundError: the round is not open, the site is not invited, or a duty failed.
        StoreError: the store does not answer.
    """
    plan = _read_plan(ws, number)
    if next_duty(ws, number, site, plan) == "over":
        return ()
    done: list[Duty] = []
    waited = 0.0
    with keep_contact(ws, number, site, every_s) as line:
        while (duty := ride_out(lambda: next_duty(ws, number, site, plan), sleep)) != "over":
            if duty != "wait":
                line.say(duty)
                before = count_events(ws.site_home(site), "train")
                verbs[duty](ws, number, site)
                line.say("wait", count_events(ws.site_home(site), "train") - before)
                done.append(duty)
                waited = 0.0
            elif waited >= patience_s:
                break
            else:
                pause = min(max(poll_s, waited / 10), POLL_MAX_S)
                sleep(pause)
                waited += pause
    return tuple(done)


def told_refusal(ws: Workspace, number: int, site: str) -> str:
    """Why the hub did not admit what the site sent; empty when it did, or has not said yet."""
    candidates = find_record(ws.store, candidates_key(number), Candidates)
    refused = candidates.quarantined if candidates else ()
    return next((refusal.reason for refusal in refused if refusal.site == site), "")


def _read_plan(ws: Workspace, number: int) -> Plan:
    try:
        return get_record(ws.store, plan_key(number), Plan)
    except ObjectMissingError as error:
        mend = "wait for the hub to open it"
        raise RoundError(f"round {number} is not open", plan_key(number), mend) from error


def _has_rated(ws: Workspace, number: int, site: str) -> bool:
    ratings = find_answer(ws.store, ratings_key(site, number), Ratings)
    return ratings is not None and ratings.candidates_sha256 == ws.store.sha256_of(candidates_key(number))


def _has_judged(ws: Workspace, number: int, site: str) -> bool:
    """By the hash that the store tells of the step; its record grows with the number of sites."""
    verdict = find_answer(ws.store, verdict_key(site, number), Verdict)
    return verdict is not None and verdict.merged_sha256 == ws.store.payload_of(merged_key(number))


def _has_adapted(ws: Workspace, plan: Plan, close: Close, site: str) -> bool:
    evaluation = find_answer(ws.store, evaluation_key(site, plan.round), Evaluation)
    return evaluation is not None and evaluation.model_sha256 == model_sha256(plan.base, close.steps)
