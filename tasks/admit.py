"""Admit the updates that arrived and fit their plan, late ones where nothing fresh came; name the others and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model.assign import assign_raters
from model.errors import IntegrityError, ObjectMissingError, PackageError, PassportError
from model.network import build_net
from model.package import check_fit, unpack_adapter
from model.seeds import derive_generator
from tasks.bank import Bank, Opened, blind_ids, find_voices
from tasks.events import log_event
from tasks.files import sha256_bytes
from tasks.ledger import (
    adapter_key,
    candidate_key,
    candidates_key,
    find_record,
    get_record,
    plan_key,
    put_record,
    update_key,
)
from tasks.records import Candidate, Candidates, Plan, Refusal, Update
from tasks.workspace import Workspace

REASON_LETTERS = 300
"""A reason may quote what a site sent, and that has no natural end."""


def admit_updates(ws: Workspace, number: int) -> Candidates:
    """Check the update that speaks for every invited site and republish the good ones under blind names.

    It is the site's update of this round or, when none has arrived, one that waits in the bank. A faulty one is
    quarantined with its reason and never stops the round for the others; nothing older takes its place.

    Args:
        ws: the run.
        number: of an open round.

    Returns:
        Admitted updates by blind name with the age of the late ones, who rates which, quarantined ones with the
        reason, and missing sites, which nothing speaks for; the earlier record unless it was below the quorum and
        a site that it lacks has an update in the ledger now. A candidate that the store has lost since is
        republished.

    Raises:
        StoreError: the store does not answer.
    """
    plan = get_record(ws.store, plan_key(number), Plan)
    now = Opened(plan, str(ws.store.sha256_of(plan_key(number))))
    bank = Bank(ws.store, now)
    found = find_record(ws.store, candidates_key(number), Candidates)
    if found and not _improved(bank, plan, found):
        _heal(ws, plan, found)
        log_event(ws.hub_home, "admit", number, "reused")
        return found
    payloads: dict[str, bytes] = {}
    ages: dict[str, int] = {}
    quarantined: list[Refusal] = []
    missing: list[str] = []
    for site in (member.site for member in plan.members):
        answered = bank.choose(site)
        if answered is None:
            missing.append(site)
            continue
        age = number - answered.plan.round
        try:
            payloads[site] = _admissible(ws, plan, answered, site)
        except PackageError as e:
            reason = f"its update of round {answered.plan.round}: {e.what}" if age else e.what
            quarantined.append(Refusal(site=site, reason=reason[:REASON_LETTERS]))
        else:
            ages[site] = age
    hashes = {site: sha256_bytes(data) for site, data in payloads.items()}
    ids = blind_ids(now.sha256, hashes)
    candidates = _republish(ws, number, {ids[site]: data for site, data in payloads.items()})
    record = Candidates(
        round=number,
        plan_sha256=now.sha256,
        candidates=candidates,
        late={ids[site]: age for site, age in ages.items() if age},
        assigned=assign_candidates(plan, now.sha256, candidates),
        quarantined=tuple(quarantined),
        missing=tuple(missing),
    )
    put_record(ws.store, candidates_key(number), record)
    counts = {"admitted": len(candidates), "late": len(record.late), "quarantined": len(quarantined)}
    log_event(ws.hub_home, "admit", number, "done", **counts)
    return record


def assign_candidates(
    plan: Plan, plan_sha256: str, candidates: Sequence[Candidate]
) -> dict[str, tuple[str, ...]]:
    """Who rates what, without a site's name.

    A table by site would give everybody away, since the one candidate that a site never rates is its own. So the
    raters, too, stand under the blind ids of their updates: a site knows its own and finds its row; the table says
    no more than the list of candidates, from which anybody can draw it again.

    Args:
        plan: gives the seed and the number of raters per candidate.
        plan_sha256: of the plan's bytes in the ledger.
        candidates: all that were admitted.

    Returns:
        Blind id of a rater's own update → blind ids it rates, sorted. Each candidate has as many raters as every
        other, but for those of equal bytes, which are not rated by each other's senders.
    """
    hashes = {c.id: c.sha256 for c in candidates}
    generator = derive_generator(plan.params.seed, "raters", plan_sha256, *sorted(hashes))
    drawn = assign_raters(sorted(hashes), plan.params.rating.raters, generator)
    return {rater: tuple(c for c in rated if hashes[c] != hashes[rater]) for rater, rated in drawn.items()}


def _improved(bank: Bank, plan: Plan, found: Candidates) -> bool:
    """Whether a round that stood below its quorum has more updates now."""
    if len(found.candidates) >= plan.params.federation.quorum:
        return False
    absent = (*found.missing, *(q.site for q in found.quarantined))
    return any(bank.choose(site) is not None for site in absent)


def _heal(ws: Workspace, plan: Plan, record: Candidates) -> None:
    """Republish what the store has lost of the candidates, from the updates of those who sent them."""
    keys = {candidate_key(c.id, plan.round): c.sha256 for c in record.candidates}
    lost = {key: sha256 for key, sha256 in keys.items() if ws.store.sha256_of(key) != sha256}
    if not lost:
        return
    updates = [voice.update for voice in find_voices(ws.store, plan, record).values()]
    sent = {update.adapter_sha256: adapter_key(update.site, update.round) for update in updates}
    for key, sha256 in lost.items():
        if sha256 in sent:
            ws.store.put(key, ws.store.get(sent[sha256], sha256))


def _admissible(ws: Workspace, plan: Plan, answered: Opened, site: str) -> bytes:
    """The site's payload after every check: its passport by the round it answers, its size and shapes by this one.

    A store that does not answer says nothing about the update, so its errors pass.
    """
    number = answered.plan.round
    try:
        update = get_record(ws.store, update_key(site, number), Update)
        check_passport(update, answered.plan, answered.sha256, site)
        limit = plan.params.package.max_bytes
        data = ws.store.get(adapter_key(site, number), update.adapter_sha256, limit)
    except (IntegrityError, ObjectMissingError) as e:
        raise PackageError(f"the update cannot be read: {e.what}", e.where, e.mend) from e
    shapes = {k: tuple(v.shape) for k, v in build_net(plan.base.architecture.channels).state_dict().items()}
    check_fit(unpack_adapter(data), shapes, plan.params.merge.rank_max)
    return data


def check_passport(update: Update, plan: Plan, plan_sha256: str, site: str) -> None:
    """Refuse an update that answers another plan.

    Args:
        update: the record that announces the adapter.
        plan: of the round.
        plan_sha256: of the plan's bytes in the ledger.
        site: whose key the update stands under.

    Raises:
        PassportError: names every field that differs, with both values.
    """
    member = plan.member(site)
    expected = {
        "round": plan.round,
        "site": site,
        "plan_sha256": plan_sha256,
        "base_sha256": plan.base.sha256,
        "model_sha256": plan.model_sha256,
        "architecture": plan.base.architecture,
        "labels": plan.base.labels,
        "spacing_mm": plan.base.spacing_mm,
        "rank": member.rank,
    }
    faults = [
        f"{name} is {getattr(update, name)}, the round has {value}"
        for name, value in expected.items()
        if getattr(update, name) != value
    ]
    if faults:
        raise PassportError(
            "; ".join(faults), update_key(site, plan.round), "train again on this round's plan"
        )


def _republish(ws: Workspace, number: int, payloads: Mapping[str, bytes]) -> tuple[Candidate, ...]:
    """Write the payloads under their blind names, and list them in the order of these."""
    for blind, data in payloads.items():
        ws.store.put(candidate_key(blind, number), data)
    return tuple(
        Candidate(id=blind, sha256=sha256_bytes(data), n_bytes=len(data))
        for blind, data in sorted(payloads.items())
    )
