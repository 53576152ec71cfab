"""Admit the updates that arrived and fit their plan, late ones where nothing fresh came; name the others and why."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from model.assign import assign_raters
from model.errors import (
    DecryptionError,
    IntegrityError,
    ObjectMissingError,
    PackageError,
    PassportError,
    SignatureError,
)
from model.network import build_net
from model.package import PackageView
from model.padding import common_length
from model.seeds import derive_generator
from tasks.bank import Bank, Opened
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
    senders_key,
    update_key,
)
from tasks.limits import REASON_LETTERS, explain
from tasks.payloads import get_payload, require_sealed, sealed_limit, unwrap, wrap_alike
from tasks.quorum import lacks_updates
from tasks.records import Candidate, Candidates, Plan, Refusal, Senders, Update
from tasks.trust import HUB
from tasks.unpack import open_package
from tasks.workspace import Workspace


def admit_updates(ws: Workspace, number: int) -> Candidates:
    """Check the update that speaks for every invited site and republish the good ones under blind names.

    It is the site's update of this round or, when none has arrived, one that waits in the bank. A faulty one is
    quarantined with its reason and never stops the round for the others; nothing older takes its place.

    Args:
        ws: the run.
        number: of an open round.

    Returns:
        Admitted updates by blind name with the age of the late ones, who rates which, quarantined ones with the
        reason, and missing sites, which nothing speaks for; the earlier record unless it lacked the quorum or a
        required site and one that was missing has an update in the ledger now. A candidate that the store has
        lost since is republished.

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
    passports: dict[str, Update] = {}
    quarantined: list[Refusal] = []
    missing: list[str] = []
    shapes = _shapes(plan)
    for member in plan.members:
        answered = bank.choose(member.site)
        if answered is None:
            missing.append(member.site)
            continue
        try:
            passports[member.site], payloads[member.site] = _admissible(
                ws, plan, answered, member.site, shapes
            )
        except PackageError as e:
            reason = e.what if answered == now else f"its update of round {answered.plan.round}: {e.what}"
            quarantined.append(Refusal(site=member.site, reason=explain(reason, REASON_LETTERS)))
    secret = _secret(ws, now)
    ids = blind_ids(secret, {site: update.adapter_sha256 for site, update in passports.items()})
    senders = Senders(
        round=number,
        plan_sha256=now.sha256,
        secret=secret,
        updates={blind: passports[site] for site, blind in ids.items()},
    )
    put_record(ws.store, senders_key(number), senders)
    nonce = secrets.token_hex(8)
    listed = [
        Candidate(id=ids[s], sha256=update.adapter_sha256, n_bytes=0) for s, update in passports.items()
    ]
    assigned = assign_candidates(plan, now.sha256, listed, nonce)
    envelope = _Envelope(ws, plan, senders, assigned)
    record = Candidates(
        round=number,
        plan_sha256=now.sha256,
        candidates=envelope.publish({ids[site]: data for site, data in payloads.items()}),
        nonce=nonce,
        assigned=assigned,
        quarantined=tuple(quarantined),
        missing=tuple(missing),
    )
    put_record(ws.store, candidates_key(number), record)
    late = sum(update.round < number for update in passports.values())
    counts = {"admitted": len(record.candidates), "late": late, "quarantined": len(quarantined)}
    log_event(ws.hub_home, "admit", number, "done", **counts)
    return record


def blind_ids(secret: str, sha256_by_site: Mapping[str, str]) -> dict[str, str]:
    """Site → the name its update is rated under.

    The name is a hash of the hub's secret and the payload: nobody else can make it from what is public, and the hub,
    when it is interrupted, makes the same again. Equal payloads are told apart by a count.
    """
    ids: dict[str, str] = {}
    twins: Counter[str] = Counter()
    for site, sha256 in sorted(sha256_by_site.items()):
        ids[site] = hashlib.sha256(f"{secret}/{sha256}/{twins[sha256]}".encode()).hexdigest()[:16]
        twins[sha256] += 1
    return ids


def assign_candidates(
    plan: Plan, plan_sha256: str, candidates: Sequence[Candidate], nonce: str
) -> dict[str, tuple[str, ...]]:
    """Who rates what, without a site's name.

    A table by site would give everybody away, since the one candidate that a site never rates is its own. So the
    raters, too, stand under the blind ids of their updates: a site knows its own and finds its row; the table says
    no more than the list of candidates and the nonce, from which anybody can draw it again.

    Args:
        plan: gives the seed and the number of raters per candidate.
        plan_sha256: of the plan's bytes in the ledger.
        candidates: all that were admitted.
        nonce: drawn after the last of them had arrived; else the last sender could try bytes until friends rate it.

    Returns:
        Blind id of a rater's own update → blind ids it rates, in an order drawn for this rater. Each candidate has as
        many raters as every other, but for those of equal bytes, which are not rated by each other's senders.
    """
    hashes = {c.id: c.sha256 for c in candidates}
    generator = derive_generator(plan.params.seed, "raters", plan_sha256, nonce, *sorted(hashes))
    drawn = assign_raters(sorted(hashes), plan.params.rating.raters, generator)
    rows = {rater: [c for c in rated if hashes[c] != hashes[rater]] for rater, rated in drawn.items()}
    orders = {
        rater: torch.randperm(len(row), generator=derive_generator(plan.params.seed, "order", nonce, rater))
        for rater, row in rows.items()
    }
    return {rater: tuple(row[k] for k in orders[rater].tolist()) for rater, row in rows.items()}


def _improved(bank: Bank, plan: Plan, found: Candidates) -> bool:
    """Whether a round that lacked its quorum or a required site has more updates now."""
    if not lacks_updates(plan, found):
        return False
    absent = (*found.missing, *(q.site for q in found.quarantined))
    return any(bank.choose(site) is not None for site in absent)


def _heal(ws: Workspace, plan: Plan, record: Candidates) -> None:
    """Republish what the store has lost of the candidates, from the updates of those who sent them."""
    lost = [c for c in record.candidates if ws.store.payload_of(candidate_key(c.id, plan.round)) != c.sha256]
    if not lost:
        return
    senders = get_record(ws.store, senders_key(plan.round), Senders)
    envelope, limit = (
        _Envelope(ws, plan, senders, record.assigned),
        sealed_limit(plan.params.package.max_bytes),
    )
    for c in lost:
        sent = adapter_key(senders.updates[c.id].site, senders.updates[c.id].round)
        envelope.publish({c.id: get_payload(ws.store, sent, c.sha256, HUB, limit)})


def _shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v.shape) for k, v in build_net(plan.base.architecture.channels).state_dict().items()}


def _admissible(
    ws: Workspace, plan: Plan, answered: Opened, site: str, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Update, bytes]:
    """A site's passport and payload after every check: of the round it answers, and in size and shapes of this one.

    A store that does not answer says nothing about the update, so its errors pass.
    """
    number = answered.plan.round
    try:
        update = get_record(ws.store, update_key(site, number), Update)
        check_passport(update, answered.plan, answered.sha256, site)
        data = _download(ws, plan, update)
    except (IntegrityError, ObjectMissingError, SignatureError, DecryptionError) as e:
        raise PackageError(f"the update cannot be read: {e.what}", e.where, e.mend) from e
    open_package(data, shapes, plan.params.merge.rank_max)
    _check_announced(update, data)
    return update, data


def _download(ws: Workspace, plan: Plan, update: Update) -> bytes:
    """The announced package; sizes are bounded before anything is downloaded, and again after it is decrypted."""
    key, limit = adapter_key(update.site, update.round), plan.params.package.max_bytes
    if not plan.params.privacy.encrypt:
        return ws.store.get(key, update.adapter_sha256, limit)
    sealed = ws.store.get(key, max_bytes=sealed_limit(limit))
    require_sealed(sealed, key)
    data = unwrap(ws.store, key, sealed, HUB)
    if len(data) > limit or sha256_bytes(data) != update.adapter_sha256:
        raise IntegrityError("what was encrypted is not the announced package", key, "send it again")
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
        "seed": plan.params.seed,
    }
    faults = [
        f"{name} is {_short(getattr(update, name))}, the round has {_short(value)}"
        for name, value in expected.items()
        if getattr(update, name) != value
    ]
    dp, spent = plan.params.privacy.dp, update.spent
    if (dp and (dp.clip, dp.noise, dp.delta)) != (spent and (spent.clip, spent.noise, spent.delta)):
        faults.append(f"noise is {_short(spent)}, the round has {_short(dp)}")
    steps = plan.params.training.steps
    if len(update.curve) > steps:  # its passport is kept with all the others', in one record
        faults.append(f"curve has {len(update.curve)} losses, the round has {steps} steps")
    if faults:
        raise PassportError(
            "; ".join(faults), update_key(site, plan.round), "train again on this round's plan"
        )


def _check_announced(update: Update, data: bytes) -> None:
    """Refuse a passport that says something else of its package than can be seen there."""
    said, seen = (update.dtype, update.adapter_bytes), (PackageView(data).dtype, len(data))
    if said != seen:
        what = f"the passport announces {_short(said[0])} in {said[1]} bytes, the package is {seen[0]} in {seen[1]}"
        raise PassportError(what, update_key(update.site, update.round), "send the package again")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


@dataclass(frozen=True)
class _Envelope:
    """How the candidates of a round are published: all of one size, each for the hub and its raters alone."""

    ws: Workspace
    plan: Plan
    senders: Senders
    assigned: Mapping[str, Sequence[str]]

    def publish(self, payloads: Mapping[str, bytes]) -> tuple[Candidate, ...]:
        """Write candidates in the order of their blind ids: the times in the store say nothing either."""
        return tuple(self._put(blind, payloads[blind]) for blind in sorted(payloads))

    def _put(self, blind: str, payload: bytes) -> Candidate:
        updates, readers = self.senders.updates, self._readers()
        length = common_length(update.adapter_bytes for update in updates.values())
        data = wrap_alike(
            self.ws.store, payload, readers[blind], length, max(len(names) for names in readers.values())
        )
        sha256 = updates[blind].adapter_sha256
        self.ws.store.put(candidate_key(blind, self.plan.round), data, payload=sha256)
        return Candidate(id=blind, sha256=sha256, n_bytes=len(data))

    def _readers(self) -> dict[str, list[str]]:
        """Blind id → who may read it; nobody in particular where nothing is encrypted."""
        updates = self.senders.updates
        if not self.plan.params.privacy.encrypt:
            return {blind: [] for blind in updates}
        return {
            blind: [HUB, *(updates[rater].site for rater, rated in self.assigned.items() if blind in rated)]
            for blind in updates
        }


def _secret(ws: Workspace, now: Opened) -> str:
    """What blind ids are made from: the one of an earlier attempt at the same plan, or a new one."""
    found = find_record(ws.store, senders_key(now.plan.round), Senders)
    return (
        found.secret if found and found.secret and found.plan_sha256 == now.sha256 else secrets.token_hex(16)
    )
