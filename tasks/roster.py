"""Who takes part: the hub's list of invited hospitals, and what those that have joined say of themselves."""

from __future__ import annotations

from model.errors import ConfigError, IntegrityError, ObjectMissingError, RoundError
from tasks.answers import find_answer
from tasks.cases import SiteCard
from tasks.enrol import members_of, refuse_foreign
from tasks.ledger import (
    FEDERATION,
    base_key,
    card_key,
    checked_name,
    find_record,
    plan_key,
    put_record,
    roster_key,
)
from tasks.limits import is_sound
from tasks.records import Base, FederationRecord, Plan, Record
from tasks.store import Store
from tasks.versions_in_use import tell_versions
from tasks.workspace import Workspace


class Roster(Record):
    """The hospitals the hub has invited."""

    sites: tuple[str, ...] = ()


def read_roster(ws: Workspace) -> Roster:
    """The invited hospitals; none before the first invitation."""
    return find_record(ws.store, roster_key(), Roster) or Roster()


def invite(ws: Workspace, site: str) -> Roster:
    """Put a hospital on the list; it takes part from the first round that opens after it has joined.

    Args:
        ws: the hub's workspace.
        site: name, 1 to 40 of a-z, 0-9 and -.

    Returns:
        The list.

    Raises:
        ConfigError: the name cannot be used.
    """
    return _write(ws, {*read_roster(ws).sites, checked_name(site)})


def dismiss(ws: Workspace, site: str) -> Roster:
    """Take a hospital off the list: it is not invited to rounds that open from now on.

    Args:
        ws: the hub's workspace.
        site: on the list.

    Returns:
        The list.

    Raises:
        ConfigError: it is not on the list.
    """
    sites = set(read_roster(ws).sites)
    if site not in sites:
        known = ", ".join(sorted(sites)) or "nobody"
        raise ConfigError(f"'{site}' is not invited", "roster", f"invited: {known}")
    return _write(ws, sites - {site})


def gather(ws: Workspace, base: Base) -> FederationRecord:
    """The federation as the next round will find it: every invited hospital whose card is in the ledger.

    Args:
        ws: the hub's workspace.
        base: record of the base, whose file lies in ``ws.base_home``.

    Returns:
        The record, written to the ledger when it changed; so are the versions of the hub's software.

    Raises:
        RoundError: fewer hospitals than the quorum have joined, or the store holds another federation.
    """
    store = ws.store
    opened = find_record(store, plan_key(1), Plan)
    if opened is not None:
        refuse_foreign(opened, base, ws.params)
    if not _is_whole(store, base.sha256):
        store.put(base_key(base.sha256), (ws.base_home / f"{base.sha256}.safetensors").read_bytes())
    invited = read_roster(ws).sites
    cards = {site: find_answer(store, card_key(site), SiteCard) for site in invited}
    joined = [card for site, card in cards.items() if card and card.site == site and is_sound(card)]
    quorum = ws.params.federation.quorum
    if len(joined) < quorum:
        absent = ", ".join(sorted(set(invited) - {card.site for card in joined})) or "nobody"
        what = f"{len(joined)} of {len(invited)} invited hospitals have joined, the quorum is {quorum}"
        raise RoundError(what, "roster", f"invited and not joined: {absent}; invite more, or wait for them")
    record = FederationRecord(base=base, members=members_of(joined, ws.params))
    if find_record(store, FEDERATION, FederationRecord) != record:
        put_record(store, FEDERATION, record)
    tell_versions(store)
    return record


def _is_whole(store: Store, base_sha256: str) -> bool:
    """Whether the ledger's base has the right bytes; sites would refuse others, and cannot mend them."""
    try:
        store.get(base_key(base_sha256), base_sha256)
    except (ObjectMissingError, IntegrityError):
        return False
    return True


def _write(ws: Workspace, sites: set[str]) -> Roster:
    roster = Roster(sites=tuple(sorted(sites)))
    put_record(ws.store, roster_key(), roster)
    return roster
