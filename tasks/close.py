"""Close a round: accept the merged step, step back, or reject it; write down the model that is now in force."""

from __future__ import annotations

from datetime import UTC, datetime
from statistics import median

from model.errors import CardiofedError
from model.judge import FRACTIONS, accepted_fraction
from tasks.answers import find_answer
from tasks.bank import late_sites
from tasks.events import log_event
from tasks.ledger import (
    candidates_key,
    close_key,
    find_record,
    get_record,
    merge_key,
    plan_key,
    put_record,
    verdict_key,
)
from tasks.merge import read_ratings, require_quorum
from tasks.records import Candidates, Close, MergeRecord, Outcome, Plan, Step, Verdict
from tasks.workspace import Workspace


def close_round(ws: Workspace, number: int) -> Close:
    """Take the merged step whole, in part or not at all, as the verdicts say, and end the round.

    Args:
        ws: the run.
        number: of a merged round.

    Returns:
        The round's terminal record, written once; only a record of a failed round is replaced.

    Raises:
        ObjectMissingError: the round is not merged yet.
        RoundError: fewer verdicts than the quorum.
    """
    plan = get_record(ws.store, plan_key(number), Plan)
    merge = get_record(ws.store, merge_key(number), MergeRecord)
    merge_sha256 = str(ws.store.sha256_of(merge_key(number)))
    found = find_record(ws.store, close_key(number), Close)
    if found and found.outcome != "failed":
        log_event(ws.hub_home, "close", number, "reused")
        return found
    verdicts = _verdicts(ws, plan, merge)
    require_quorum(plan, verdicts, "judged the merged step")
    gains = _gains(verdicts)
    fraction = accepted_fraction(gains, plan.params.judge.tolerance)
    missing = _missing(ws, plan, merge, verdicts)
    close = Close(
        round=number,
        plan_sha256=str(ws.store.sha256_of(plan_key(number))),
        outcome=_outcome(fraction),
        fraction=fraction,
        degraded=bool(missing),
        participants=tuple(r.site for r in merge.receipts),
        missing=missing,
        judges=tuple(sorted(verdicts)),
        gains={str(f): round(median(votes.values()), 6) for f, votes in gains.items() if votes},
        merge_sha256=merge_sha256,
        verdicts_sha256={site: str(ws.store.sha256_of(verdict_key(site, number))) for site in verdicts},
        steps=_chain(plan, merge, fraction),
        reason=_reason(gains, fraction, plan.params.judge.tolerance),
        closed=datetime.now(UTC),
    )
    put_record(ws.store, close_key(number), close)
    log_event(ws.hub_home, "close", number, "done", fraction=fraction)
    return close


def close_failed(ws: Workspace, number: int, error: CardiofedError) -> Close:
    """The terminal record of a round that missed its quorum; the model stays as it was.

    A later run of the same round may still close it properly.

    Args:
        ws: the run.
        number: of the round.
        error: says why it failed.

    Returns:
        The record, which names who is missing up to the phase that the round failed in.
    """
    plan = get_record(ws.store, plan_key(number), Plan)
    candidates = find_record(ws.store, candidates_key(number), Candidates)
    out = {*candidates.missing, *(q.site for q in candidates.quarantined)} if candidates else set()
    close = Close(
        round=number,
        plan_sha256=str(ws.store.sha256_of(plan_key(number))),
        outcome="failed",
        fraction=0.0,
        degraded=True,
        participants=tuple(m.site for m in plan.members if candidates and m.site not in out),
        missing=_missing_when_failed(ws, plan, candidates, out),
        judges=(),
        gains={},
        merge_sha256=None,
        verdicts_sha256={},
        steps=plan.steps,
        reason=error.what,
        closed=datetime.now(UTC),
    )
    put_record(ws.store, close_key(number), close)
    log_event(ws.hub_home, "close", number, "done", fraction=0.0)
    return close


def _chain(plan: Plan, merge: MergeRecord, fraction: float) -> tuple[Step, ...]:
    """The steps in force after the round; the published bytes are the ones that were judged."""
    if fraction == 0:
        return plan.steps
    return (*plan.steps, Step(round=plan.round, sha256=merge.merged_sha256, fraction=fraction))


def _verdicts(ws: Workspace, plan: Plan, merge: MergeRecord) -> dict[str, Verdict]:
    """Verdicts on exactly this merge, by judge; only those whose update is part of it are heard."""
    sites = [receipt.site for receipt in merge.receipts]
    found = {site: find_answer(ws.store, verdict_key(site, plan.round), Verdict) for site in sites}
    return {s: v for s, v in found.items() if v and v.merged_sha256 == merge.merged_sha256 and v.site == s}


def _gains(verdicts: dict[str, Verdict]) -> dict[float, dict[str, float]]:
    """Fraction → judge → gain."""
    table: dict[float, dict[str, float]] = {f: {} for f in FRACTIONS}
    for site, verdict in verdicts.items():
        for fraction, votes in table.items():
            score = verdict.gains.get(str(fraction))
            if score is not None and score.gain is not None:
                votes[site] = score.gain
    return table


def _missing(ws: Workspace, plan: Plan, merge: MergeRecord, verdicts: dict[str, Verdict]) -> tuple[str, ...]:
    """Sites that were invited and did not take part from training to judging.

    A site that a late update spoke for is among them, whatever it rated or judged: it did not train in time, and
    its share of the step comes from an earlier round. Its receipt says so too.
    """
    took_part = {r.site for r in merge.receipts if r.age == 0} & set(verdicts)
    if merge.mode != "average":
        took_part &= set(merge.ratings_sha256)
    return tuple(sorted({m.site for m in plan.members} - took_part))


def _missing_when_failed(
    ws: Workspace, plan: Plan, candidates: Candidates | None, out: set[str]
) -> tuple[str, ...]:
    """Sites that a failed round lacked: fresh updates, then ratings, then verdicts; ``out`` were not admitted."""
    sites = {m.site for m in plan.members}
    if candidates is None:
        return tuple(sorted(sites))
    late = late_sites(ws.store, plan.round)
    if len(candidates.candidates) < plan.params.federation.quorum:
        return tuple(sorted(out | late))
    merge = find_record(ws.store, merge_key(plan.round), MergeRecord)
    if merge is not None:
        return _missing(ws, plan, merge, _verdicts(ws, plan, merge))
    raters = read_ratings(ws, plan, str(ws.store.sha256_of(candidates_key(plan.round))))
    return tuple(sorted(out | late | (sites - set(raters))))


def _outcome(fraction: float) -> Outcome:
    if fraction == 1.0:
        return "accepted"
    return "stepped_back" if fraction > 0 else "rejected"


def _reason(gains: dict[float, dict[str, float]], fraction: float, tolerance: float) -> str:
    votes = gains[fraction if fraction > 0 else FRACTIONS[-1]]
    if not votes:
        return "no site judged the merged step, so it is not published"
    verb = {1.0: "accepted whole", 0.0: "rejected"}.get(fraction, f"accepted at {fraction:.0%}")
    share = "a quarter of the step" if fraction == 0 else f"{fraction:.0%} of the step"
    return (
        f"{verb}: with {share} the median of {len(votes)} sites gains {median(votes.values()):+.4f} Dice "
        f"(tolerated loss {tolerance:.3f})"
    )
