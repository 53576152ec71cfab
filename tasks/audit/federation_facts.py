"""The facts of the federation: who is invited, who has joined, who takes part on which base."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import JsonValue

from tasks.audit.entry import Fact, Kind
from tasks.audit.log import Log
from tasks.audit.site_facts import facts_of_keys
from tasks.ledger import FEDERATION, RELEASES, card_key, get_record, roster_key
from tasks.records import FederationRecord
from tasks.registered import Roster
from tasks.release.records import Released
from tasks.store import Store


def federation_facts(store: Store, log: Log) -> Iterator[Fact]:
    """What has changed in the federation since the log was last continued.

    Args:
        store: the ledger's store.
        log: as it stands.

    Yields:
        ``founded`` or ``members``, ``listed``, ``invited``, ``dismissed``, ``key``, ``joined``, ``released``.
    """
    yield from _roster_facts(store, log)
    yield from _release_facts(store, log)
    found = store.look(FEDERATION)
    if found is None or log.tells(found[0]):
        return
    info, sha256 = found
    record = get_record(store, FEDERATION, FederationRecord)
    sites: list[JsonValue] = [member.site for member in record.members]
    facts: dict[str, JsonValue] = {"base_sha256": record.base.sha256, "sites": sites}
    kind: Kind = "members" if any(e.kind == "founded" for e in log.entries) else "founded"
    yield Fact(kind, None, None, FEDERATION, sha256, info.size, facts, info.modified)
    yield from facts_of_keys(store, log, [card_key(member.site) for member in record.members])


def _roster_facts(store: Store, log: Log) -> Iterator[Fact]:
    found = store.look(roster_key())
    if found is None or log.tells(found[0]):
        return
    info, sha256 = found
    roster = get_record(store, roster_key(), Roster)
    now, before = set(roster.sites), invited_sites(log)
    yield Fact("listed", None, None, roster_key(), sha256, info.size, {}, info.modified)
    changes: tuple[tuple[Kind, set[str]], ...] = (("invited", now - before), ("dismissed", before - now))
    for kind, sites in changes:
        for site in sorted(sites):
            yield Fact(kind, None, site, time=info.modified)
    for site, keys in sorted(roster.keys.items()):
        for key in keys:
            facts: dict[str, JsonValue] = {
                "sign": key.identity.sign,
                "age": key.identity.age,
                "state": key.state,
            }
            yield Fact("key", None, site, facts=facts, time=info.modified)


def _release_facts(store: Store, log: Log) -> Iterator[Fact]:
    """Every change of the clinical channel; who approved it stands in the object alone."""
    for info in store.list(RELEASES):
        if not log.tells(info):
            record, sha256 = get_record(store, info.key, Released), store.sha256_of(info.key)
            facts: dict[str, JsonValue] = {"action": record.action, "release": record.release}
            facts |= {"model_sha256": record.model_sha256, "before": record.before or ""}
            yield Fact("released", record.round, None, info.key, sha256, info.size, facts, info.modified)


def invited_sites(log: Log) -> set[str]:
    """Who is invited, as the log tells it."""
    sites: set[str] = set()
    for entry in log.entries:
        if entry.site and entry.kind == "invited":
            sites.add(entry.site)
        elif entry.site and entry.kind == "dismissed":
            sites.discard(entry.site)
    return sites
