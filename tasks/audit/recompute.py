"""Draw the raters of a round again and weigh its updates again, from what the sites said: is that what the hub did?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from model.errors import PackageError, SignatureError
from model.merge import merge_shares
from model.rating import rated_weights
from tasks.admit import assign_candidates, blind_ids
from tasks.audit.chain import Fault
from tasks.audit.entry import Entry
from tasks.audit.hub_facts import weight_numbers
from tasks.audit.source import Source
from tasks.bank import aged_volumes
from tasks.files import sha256_bytes
from tasks.ledger import candidates_key, merge_key, plan_key, ratings_key
from tasks.limits import limits_of, parse_record
from tasks.rate import heard_findings
from tasks.rating_rule import rating_rule
from tasks.records import Candidates, MergeRecord, Plan, Ratings
from tasks.seal import split_seal

T = TypeVar("T", bound=BaseModel)
Told = Mapping[tuple[str, str | None], Entry]
"""Kind and site → entry, of one round."""

TOLERANCE = 2e-6
"""Records round to six decimals."""


class LackingError(Exception):
    """The copy lacks an object that is needed."""


@dataclass(frozen=True)
class Sent:
    """An update as the log unblinded it."""

    candidate: str
    update_round: int
    adapter_sha256: str
    secret: str
    """of the round, that blind names are made from"""


def unblinded(entries: Sequence[Entry], number: int) -> dict[str, Sent]:
    """Site → what it sent to a round, as the log tells it."""
    return {
        str(e.site): Sent(
            str(e.facts["candidate"]),
            int(str(e.facts["update_round"])),
            str(e.facts["adapter_sha256"]),
            str(e.facts["secret"]),
        )
        for e in entries
        if e.kind == "unblinded" and e.round == number
    }


def round_faults(source: Source, entries: Sequence[Entry], number: int) -> list[Fault]:
    """What the hub's records of a round say otherwise than the sites' own records give.

    Args:
        source: a copy of the ledger.
        entries: of the log.
        number: of a round that has closed.

    Returns:
        By entry; empty when all is as the rules say.

    Raises:
        LackingError: the copy lacks what is needed, such as the other sites' ratings; says which.
    """
    told: Told = {(e.kind, e.site): e for e in entries if e.round == number}
    plan, candidates = (
        _read(source, plan_key(number), Plan),
        _read(source, candidates_key(number), Candidates),
    )
    sent = unblinded(entries, number)
    faults = [*_draw_faults(source, told, plan, candidates, sent)]
    if ("merged", None) in told:
        revoked = {e.site for e in entries if e.kind == "key" and e.facts["state"] == "revoked"}
        faults += _left_out(source, told, number, sent.keys() - revoked)
        faults += _weight_faults(source, told, plan, candidates, sent)
    return faults


def _draw_faults(
    source: Source,
    told: Told,
    plan: Plan,
    candidates: Candidates,
    sent: Mapping[str, Sent],
) -> Iterator[Fault]:
    plan_sha256 = sha256_bytes(_bytes(source, plan_key(plan.round)))
    n = told["drawn", None].n if ("drawn", None) in told else 0
    if candidates.assigned != assign_candidates(plan, plan_sha256, candidates.candidates, candidates.nonce):
        yield Fault(n, "contradicted", f"the raters of round {plan.round} are not those that the nonce draws")
    secret = next((s.secret for s in sent.values()), "")
    names = blind_ids(secret, {site: s.adapter_sha256 for site, s in sent.items()})
    hashes = {c.id: c.sha256 for c in candidates.candidates}
    for site, s in sent.items():
        if names[site] != s.candidate or hashes.get(s.candidate) != s.adapter_sha256:
            n, said = told["unblinded", site].n, f"candidate {s.candidate} is not what {site} sent"
            yield Fault(n, "contradicted", f"{said} to round {plan.round}")


def _left_out(source: Source, told: Told, number: int, sites: Collection[str]) -> Iterator[Fault]:
    """Sites whose update was admitted and is not part of the merge; only a revoked key is a reason."""
    receipts = {receipt.site for receipt in _read(source, merge_key(number), MergeRecord).receipts}
    for site in sorted(set(sites) - receipts):
        yield Fault(told["merged", None].n, "contradicted", f"the merge of round {number} leaves {site} out")


def _weight_faults(
    source: Source,
    told: Told,
    plan: Plan,
    candidates: Candidates,
    sent: Mapping[str, Sent],
) -> Iterator[Fault]:
    number = plan.round
    merge = _read(source, merge_key(number), MergeRecord)
    ratings = {site: _read(source, ratings_key(site, number), Ratings) for site in merge.ratings_sha256}
    for site, sha256 in merge.ratings_sha256.items():
        rated = told.get(("rated", site))
        if rated is None or rated.sha256 != sha256:
            n = told["merged", None].n
            yield Fault(n, "contradicted", f"the merge of round {number} heard other ratings than {site}'s")
        elif sha256_bytes(_bytes(source, ratings_key(site, number))) != sha256:
            raise LackingError(f"the ratings of {site} that were heard")
    merged = {receipt.site: sent[receipt.site] for receipt in merge.receipts if receipt.site in sent}
    expected = expected_weights(source, plan, candidates, merged, ratings)
    for receipt in merge.receipts:
        entry = told.get(("weighted", receipt.site), told["merged", None])
        if entry.kind == "weighted" and any(
            entry.facts[key] != value for key, value in weight_numbers(receipt).items()
        ):
            yield Fault(entry.n, "contradicted", f"the receipt of {receipt.site} says something else")
        claims = {
            "rated_weight": receipt.rated_weight,
            "used_weight": receipt.used_weight,
            "share": receipt.share,
        }
        for name, claim in claims.items():
            right = expected.get(receipt.site, {}).get(name)
            if right is None or abs(right - claim) > TOLERANCE:
                is_ = "nothing" if right is None else f"{right:.6f}"
                why = f"{name} of {receipt.site} in round {number} is {claim}, the ratings give {is_}"
                yield Fault(entry.n, "contradicted", why)


def expected_weights(
    source: Source,
    plan: Plan,
    candidates: Candidates,
    sent: Mapping[str, Sent],
    ratings: Mapping[str, Ratings],
) -> dict[str, dict[str, float]]:
    """Weights and shares by the published rule.

    Args:
        source: for the plans of late updates.
        plan: of the round.
        candidates: of the round.
        sent: by site.
        ratings: that the merge says it heard.

    Returns:
        Site → ``rated_weight``, ``used_weight``, ``share``.
    """
    settings = plan.params.merge
    findings = heard_findings(candidates, {site: s.candidate for site, s in sent.items()}, ratings)
    rated = {site: r.weight for site, r in rated_weights(findings, rating_rule(plan.params.rating)).items()}
    used = rated if settings.mode == "rated" else dict.fromkeys(sent, 1.0)
    plans = {s.update_round: _read(source, plan_key(s.update_round), Plan) for s in sent.values()}
    slices = {site: plans[s.update_round].member(site).train_slices for site, s in sent.items()}
    ages = {site: plan.round - s.update_round for site, s in sent.items()}
    shares = merge_shares(used, aged_volumes(slices, ages, settings), settings.form) if sent else {}
    return {
        site: {"rated_weight": rated[site], "used_weight": used[site], "share": shares[site]} for site in sent
    }


def _bytes(source: Source, key: str) -> bytes:
    data = source.read(key)
    if data is None:
        raise LackingError(key)
    return data


def _read(source: Source, key: str, kind: type[T]) -> T:
    try:
        return parse_record(split_seal(_bytes(source, key), key).record, kind, key, limits_of(key))
    except (PackageError, SignatureError) as error:
        raise LackingError(f"{key} ({error.what})") from error
