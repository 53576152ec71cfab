"""Continue the audit log: what the ledger holds and the log does not tell yet is appended, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import TypeVar, get_args

from tasks.audit.entry import Entry, Fact, Kind
from tasks.audit.federation_facts import federation_facts
from tasks.audit.hub_facts import (
    RoundReader,
    admission_facts,
    closing_facts,
    merge_facts,
    opening_facts,
    page_facts,
)
from tasks.audit.log import Log, append, load_log, sign
from tasks.audit.site_facts import facts_of_all, facts_of_keys
from tasks.ledger import (
    candidates_key,
    close_key,
    merge_key,
    plan_key,
    ratings_key,
    senders_key,
    update_key,
    verdict_key,
)
from tasks.records import Senders
from tasks.workspace import Workspace

R = TypeVar("R")
_ORDER = {kind: place for place, kind in enumerate(get_args(Kind))}


def append_missing(ws: Workspace, number: int, more: Sequence[Fact] = (), thorough: bool = False) -> int:
    """Append the facts of a round, and of the federation, that the log does not tell yet.

    Only the hub under its lease may do that. Facts are read from the ledger, so whatever was killed, the next call
    appends what is lacking; a second call appends nothing.

    Args:
        ws: the hub's workspace.
        number: of the round.
        more: facts that the ledger does not hold.
        thorough: look through all that the sites have ever sent, as after a round.

    Returns:
        How many entries were appended.

    Raises:
        AuditError: the log in the ledger is not the one that this hub wrote.
        StoreError: the store does not answer.
    """
    log = load_log(ws.store, ws.hub_home)
    told = set(log.identities)
    facts = []
    for fact in sorted((*more, *_facts(ws, number, log, thorough)), key=lambda fact: _ORDER[fact.kind]):
        if fact.identity not in told:
            told.add(fact.identity)
            facts.append(fact)
    if facts:
        log = append(ws.store, ws.hub_home, log, facts)
    elif log.signed < log.count:
        sign(ws.store, log)
    ws.store.seals.saw(log.count, log.sha256)
    return len(facts)


def recorded(
    verb: Callable[[Workspace, int], R],
    tell: Callable[[int, R], Fact] | None = None,
    thorough: bool = False,
) -> Callable[[Workspace, int], R]:
    """A verb of the hub that continues the log when it is done.

    Args:
        verb: of workspace and round.
        tell: what its result adds to what the ledger holds.
        thorough: as in :func:`append_missing`.

    Returns:
        The verb; run again, it appends nothing twice.
    """

    @wraps(verb)
    def run(ws: Workspace, number: int) -> R:
        result = verb(ws, number)
        append_missing(ws, number, [tell(number, result)] if tell else [], thorough)
        return result

    return run


def _facts(ws: Workspace, number: int, log: Log, thorough: bool) -> Iterator[Fact]:
    store, reader = ws.store, RoundReader(ws.store, number, log)
    opens = reader.is_new(plan_key(number))
    merges = reader.is_new(merge_key(number))
    if opens or merges or thorough:
        yield from federation_facts(store, log)
    if opens:
        yield from opening_facts(reader)
    if reader.is_new(candidates_key(number)):
        yield from _admission(reader)
    if merges:
        yield from facts_of_keys(store, log, [ratings_key(site, number) for site in reader.sites])
        yield from merge_facts(reader)
    closing: list[Fact] = []
    if reader.is_new(close_key(number)):
        yield from facts_of_keys(store, log, [verdict_key(site, number) for site in reader.sites])
        closing = list(closing_facts(reader))
        yield from closing
    if thorough:
        revealed = _revealed(log, closing, number - reader.plan.params.merge.late_rounds)
        for site in reader.sites:
            yield from facts_of_all(store, log, site, revealed)
    yield from page_facts(reader)


def _admission(reader: RoundReader) -> Iterator[Fact]:
    """The updates that have arrived, and what became of them."""
    updates = reader.read(senders_key(reader.number), Senders).updates.values()
    rounds = {update.site: update.round for update in updates}
    keys = {site: update_key(site, rounds.get(site, reader.number)) for site in reader.sites}
    arrived = list(facts_of_keys(reader.store, reader.log, keys.values()))
    yield from arrived
    hashes = {key: entry.sha256 for key, entry in reader.log.objects.items()}
    hashes |= {fact.object: fact.sha256 for fact in arrived if fact.object}
    yield from admission_facts(reader, {site: hashes.get(keys[site]) for site in rounds})


def _revealed(log: Log, closing: Sequence[Fact], expired: int) -> Callable[[str, int | None], bool]:
    """Whether nobody will rate a site's adapter of a round blindly any more.

    Its candidate was unblinded, or it is too old to become one.
    """
    said: list[Entry | Fact] = [*log.entries, *closing]
    told = {(e.site, e.facts["update_round"]) for e in said if e.kind == "unblinded"}
    return lambda site, number: (site, number) in told or (number is not None and number <= expired)
