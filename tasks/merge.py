"""Merge the admitted updates into one step, with a receipt for every site."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from model.clip import clip_updates
from model.errors import RoundError
from model.factors import Adapter, Factors, adapter_norm, sum_adapters
from model.merge import update_norms
from model.package import pack_adapter, unpack_adapter
from model.rating import Findings, rated_weights
from tasks.answers import find_answer
from tasks.bank import Voice, aged_volumes, find_voices
from tasks.events import log_event
from tasks.files import sha256_bytes
from tasks.leave_out import Ingredients
from tasks.ledger import (
    candidate_key,
    candidates_key,
    close_key,
    find_record,
    get_record,
    merge_key,
    merged_key,
    plan_key,
    put_record,
    ratings_key,
    rest_key,
)
from tasks.packing import Parcel, pack_parcel
from tasks.payloads import get_payload, wrap
from tasks.rate import heard_findings
from tasks.rating_rule import rating_rule
from tasks.receipts import Judgement, Sender, write_receipts
from tasks.records import Candidate, Candidates, Close, MergeRecord, Plan, Ratings, Receipt, Step
from tasks.registered import registered
from tasks.sealed_box import seal_for
from tasks.step_keys import current_step_key
from tasks.trust import HUB
from tasks.workspace import Workspace

_MEND = "retry the failed sites, then run the round again: what is done is kept"


def merge_updates(ws: Workspace, number: int) -> MergeRecord:
    """Weight the admitted updates, add them up to the round's step and pack it as it would be published.

    What the package cannot carry of step and carry is kept beside it for the next merge. After the round has
    closed its merge stands, whoever still sends a rating.

    Args:
        ws: the run.
        number: of a round whose updates were admitted.

    Returns:
        How the step came about, with a receipt per site; the earlier record when the same candidates and
        ratings were merged before.

    Raises:
        RoundError: fewer updates or, where they count, ratings than the quorum.
        IntegrityError: a candidate's bytes changed since admission.
        PackageError: the budget holds not even one component.
    """
    plan = get_record(ws.store, plan_key(number), Plan)
    candidates = get_record(ws.store, candidates_key(number), Candidates)
    asked = str(ws.store.sha256_of(candidates_key(number)))
    ratings = read_ratings(ws, plan, asked)
    hashes = {site: str(ws.store.sha256_of(ratings_key(site, number))) for site in ratings}
    found = find_record(ws.store, merge_key(number), MergeRecord)
    same = found and (found.candidates_sha256, found.ratings_sha256) == (asked, hashes)
    if found and (same or _is_closed(ws, number)):
        log_event(ws.hub_home, "merge", number, "reused")
        return found
    admitted = _admitted(ws, plan, candidates)
    _require_updates(plan, candidates, admitted)
    if plan.params.merge.mode != "average":
        require_quorum(plan, ratings.keys() & admitted.keys(), "rated the updates")
    blind = {site: a.candidate.id for site, a in admitted.items()}
    merged = _merge(plan, admitted, heard_findings(candidates, blind, ratings))
    package = plan.params.package
    carry = read_carry(ws, plan)
    parcel = pack_parcel(merged.step, carry, package, package.download_bytes, plan.params.merge.rank_max)
    record = MergeRecord(
        round=number,
        candidates_sha256=asked,
        ratings_sha256=hashes,
        mode=plan.params.merge.mode,
        receipts=merged.receipts,
        shadow_distance=merged.shadow_distance,
        step_norm=round(adapter_norm(merged.step), 6),
        merged_sha256=sha256_bytes(parcel.data),
        merged_bytes=len(parcel.data),
        cut_energy=round(1 - parcel.kept, 6),
        rest_sha256=_put_parcel(ws, number, parcel, plan.params.privacy.encrypt),
    )
    put_record(ws.store, merge_key(number), record)
    log_event(ws.hub_home, "merge", number, "done", updates=len(admitted), merged_bytes=record.merged_bytes)
    return record


def read_carry(ws: Workspace, plan: Plan) -> Adapter:
    """What the steps in force could not carry.

    A step taken in part, f, hands on f of its rest and 1 − f of the carry it was packed with.

    Args:
        ws: the run.
        plan: of a round; its chain decides, so a rejected or failed round leaves the carry as it was.

    Returns:
        Factors by layer; empty before the first accepted round, and without feedback.

    Raises:
        IntegrityError: the rest is not the one that the merge wrote down.
    """
    return _carry_after(ws, plan.steps)


def require_quorum(plan: Plan, answers: Collection[str], did: str) -> None:
    """Refuse to go on when too few sites have answered.

    Args:
        plan: of the round; names the members and the quorum.
        answers: the sites that have answered.
        did: what they did, in words.

    Raises:
        RoundError: fewer than the quorum, or a required site is missing; names the members that did not answer.
    """
    quorum = plan.params.federation.quorum
    _require_sites(plan, answers, did)
    if len(answers) < quorum:
        absent = ", ".join(m.site for m in plan.members if m.site not in answers)
        sites = "1 site" if len(answers) == 1 else f"{len(answers)} sites"
        what = f"{sites} {did}, the quorum is {quorum}; without: {absent}"
        raise RoundError(what, f"round {plan.round}", _MEND)


def _require_sites(plan: Plan, answers: Collection[str], did: str) -> None:
    absent = sorted(set(plan.params.federation.required) - set(answers))
    if absent:
        raise RoundError(f"required sites have not {did}: {', '.join(absent)}", f"round {plan.round}", _MEND)


def read_ratings(ws: Workspace, plan: Plan, asked: str) -> dict[str, Ratings]:
    """Ratings that answer exactly these candidates, by rater; none where the merge mode asks for none.

    Args:
        ws: the run.
        plan: of the round.
        asked: sha256 of the candidates' record.

    Returns:
        Rater → its scores.
    """
    if plan.params.merge.mode == "average":
        return {}
    found = {m.site: find_answer(ws.store, ratings_key(m.site, plan.round), Ratings) for m in plan.members}
    return {site: r for site, r in found.items() if r and r.candidates_sha256 == asked and r.site == site}


@dataclass(frozen=True)
class _Admitted:
    """One candidate with its site again."""

    voice: Voice
    train_slices: int
    """as invited to the update's own round: an update cannot make itself count for more"""
    candidate: Candidate
    adapter: Adapter


@dataclass(frozen=True)
class _Merged:
    step: dict[str, Factors]
    receipts: tuple[Receipt, ...]
    shadow_distance: float | None


def _carry_after(ws: Workspace, steps: Sequence[Step]) -> dict[str, Factors]:
    if not steps:
        return {}
    *before, last = steps
    rest_sha256 = get_record(ws.store, merge_key(last.round), MergeRecord).rest_sha256
    parts: list[tuple[float, Adapter]] = []
    if rest_sha256 is not None:
        parts.append(
            (last.fraction, unpack_adapter(get_payload(ws.store, rest_key(last.round), rest_sha256, HUB)))
        )
    if last.fraction < 1:
        parts.append((1 - last.fraction, _carry_after(ws, before)))
    return sum_adapters(parts)


def _put_parcel(ws: Workspace, number: int, parcel: Parcel, encrypt: bool) -> str | None:
    """Write the step for all members and, where there is one, its rest for the hub; returns the rest's hash."""
    step = parcel.data
    if encrypt:
        step = seal_for(step, [current_step_key(ws.store, ws.store.seals.private_key(HUB))])
    ws.store.put(merged_key(number), step, payload=sha256_bytes(parcel.data))
    if not parcel.rest:
        return None
    rest = pack_adapter(parcel.rest, "fp32")
    ws.store.put(rest_key(number), wrap(ws.store, rest, [HUB] if encrypt else []), payload=sha256_bytes(rest))
    return sha256_bytes(rest)


def _is_closed(ws: Workspace, number: int) -> bool:
    close = find_record(ws.store, close_key(number), Close)
    return close is not None and close.outcome != "failed"


def _require_updates(plan: Plan, candidates: Candidates, admitted: Collection[str]) -> None:
    _require_sites(plan, admitted, "sent an update that was admitted")
    quorum, n = plan.params.federation.quorum, len(admitted)
    if n < quorum:
        absent = [*candidates.missing, *(f"{q.site} ({q.reason})" for q in candidates.quarantined)]
        were = "1 update was" if n == 1 else f"{n} updates were"
        raise RoundError(
            f"{were} admitted, the quorum is {quorum}; without: {', '.join(absent)}",
            f"round {plan.round}",
            _MEND,
        )


def _admitted(ws: Workspace, plan: Plan, candidates: Candidates) -> dict[str, _Admitted]:
    """Site → its update as it was admitted, unless the hub has revoked its key since.

    What the site has announced since plays no part.
    """
    roster = registered(ws.store)
    everybody = find_voices(ws.store, plan.round)
    voices = {blind: v for blind, v in everybody.items() if not roster.is_revoked(v.update.site)}
    plans = {n: get_record(ws.store, plan_key(n), Plan) for n in {v.update.round for v in voices.values()}}
    return {
        voices[c.id].update.site: _Admitted(
            voice=voices[c.id],
            train_slices=plans[voices[c.id].update.round].member(voices[c.id].update.site).train_slices,
            candidate=c,
            adapter=unpack_adapter(
                get_payload(ws.store, candidate_key(c.id, plan.round), c.sha256, HUB, c.n_bytes)
            ),
        )
        for c in sorted(
            (c for c in candidates.candidates if c.id in voices), key=lambda c: voices[c.id].update.site
        )
    }


def _merge(plan: Plan, admitted: dict[str, _Admitted], findings: dict[str, dict[str, Findings]]) -> _Merged:
    settings, rule = plan.params.merge, rating_rule(plan.params.rating)
    rated = rated_weights(findings, rule)
    by_rating = {site: r.weight for site, r in rated.items()}
    updates = {site: a.adapter for site, a in admitted.items()}
    ages = {site: a.voice.age for site, a in admitted.items()}
    norms = update_norms(updates)
    used = Ingredients(
        updates=updates,
        weights=by_rating if settings.mode == "rated" else dict.fromkeys(updates, 1.0),
        volumes=aged_volumes({site: a.train_slices for site, a in admitted.items()}, ages, settings),
        clips=clip_updates(updates, settings.clip),
        form=settings.form,
    )
    step = used.step()
    senders = {
        site: Sender(
            a.voice, a.train_slices, a.voice.update.adapter_bytes, settings.late_discount**a.voice.age
        )
        for site, a in admitted.items()
    }
    judged = {site: Judgement(findings[site], rated[site], norms[site]) for site in admitted}
    receipts = write_receipts(senders, judged, used, rule, settings.mode)
    if settings.mode != "shadow":
        return _Merged(step, receipts, None)
    return _Merged(step, receipts, _distance(replace(used, weights=by_rating).step(), step))


def _distance(shadow: Adapter, step: Adapter) -> float:
    size = adapter_norm(step)
    return round(adapter_norm(sum_adapters([(1.0, shadow), (-1.0, step)])) / size, 6) if size > 0 else 0.0
