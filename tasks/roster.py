"""Who takes part: the hub's list of invited hospitals, and what those that have joined say of themselves."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from model.errors import ConfigError, IntegrityError, ObjectMissingError, RoundError
from tasks.answers import find_answer
from tasks.cases import SiteCard
from tasks.enrol import members_of, published, refuse_foreign
from tasks.key_offer import take_offers
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
from tasks.records import Base, FederationRecord, Plan
from tasks.registered import Roster, registered
from tasks.store import Store
from tasks.trust import refuse_hubs_name
from tasks.versions_in_use import tell_versions
from tasks.workspace import Workspace


def read_roster(ws: Workspace) -> Roster:
    """The invited hospitals; none before the first invitation."""
    return registered(ws.store)


def invite(ws: Workspace, site: str) -> Roster:
    """Put a hospital on the list; it takes part from the first round that opens after it has joined.

    Args:
        ws: the hub's workspace.
        site: name, 1 to 40 of a-z, 0-9 and -.

    Returns:
        The list.

    Raises:
        ConfigError: the name cannot be used.
        TrustError: it is the hub's.
    """
    refuse_hubs_name(checked_name(site))
    return _change(ws, lambda roster: _listing(roster, {*roster.sites, site}))


def require_invited(ws: Workspace, site: str) -> Roster:
    """The list, when a hospital is on it.

    Args:
        ws: the hub's workspace.
        site: name.

    Returns:
        The list.

    Raises:
        ConfigError: it is not on the list.
    """
    roster = read_roster(ws)
    if site not in roster.sites:
        known = ", ".join(roster.sites) or "nobody"
        raise ConfigError(f"'{site}' is not invited", "roster", f"invited: {known}")
    return roster


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
    require_invited(ws, site)
    return _change(ws, lambda roster: _listing(roster, set(roster.sites) - {site}))


def revoke(ws: Workspace, site: str) -> Roster:
    """Take a hospital's key back: what it sealed is refused from now on, also what lies in the store unmerged.

    It is off the list, too. Invited anew, it needs another key.

    Args:
        ws: the hub's workspace.
        site: that has or had a key, or is on the list.

    Returns:
        The list.

    Raises:
        ConfigError: the hub does not know it.
    """
    if site not in read_roster(ws).keys:
        require_invited(ws, site)
    return _change(
        ws, lambda roster: _listing(roster.without_identity(site, "revoked"), set(roster.sites) - {site})
    )


def end_key(ws: Workspace, site: str) -> Roster:
    """End a hospital's key before it has another; it stays invited.

    Args:
        ws: the hub's workspace.
        site: on the list.

    Returns:
        The list.

    Raises:
        ConfigError: it is not on the list.
    """
    require_invited(ws, site)
    return _change(ws, lambda roster: roster.without_identity(site, "replaced"))


def register_offers(ws: Workspace) -> Roster:
    """Put the keys of those who have joined since on the list.

    Args:
        ws: the hub's workspace.

    Returns:
        The list; it says whose key was refused, and why.
    """
    return _change(ws, lambda roster: take_offers(ws.store, roster))


def gather(ws: Workspace, base: Base) -> FederationRecord:
    """The federation as the next round will find it: every invited hospital whose card is in the ledger.

    Args:
        ws: the hub's workspace.
        base: record of the base, whose file lies in ``ws.base_home``.

    Returns:
        The record, written to the ledger when it changed; so are the keys of those who have joined since, and the
        versions of the hub's software.

    Raises:
        RoundError: fewer hospitals than the quorum have joined, or the store holds another federation.
    """
    store = ws.store
    opened = find_record(store, plan_key(1), Plan)
    if opened is not None:
        refuse_foreign(opened, base, ws.params)
    if not _is_whole(store, base.sha256):
        store.put(base_key(base.sha256), (ws.base_home / f"{base.sha256}.safetensors").read_bytes())
    roster = register_offers(ws)
    invited = roster.sites
    cards = {site: find_answer(store, card_key(site), SiteCard) for site in invited}
    joined = [card for site, card in cards.items() if card and card.site == site and is_sound(card)]
    quorum = ws.params.federation.quorum
    if len(joined) < quorum:
        absent = ", ".join(sorted(set(invited) - {card.site for card in joined})) or "nobody"
        what = f"{len(joined)} of {len(invited)} invited hospitals have joined, the quorum is {quorum}"
        raise RoundError(what, "roster", f"invited and not joined: {absent}; invite more, or wait for them")
    record = published(ws, FederationRecord(base=base, members=members_of(joined, ws.params)), roster)
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


def _listing(roster: Roster, sites: set[str]) -> Roster:
    return roster.model_copy(update={"sites": tuple(sorted(sites))})


def _change(ws: Workspace, change: Callable[[Roster], Roster]) -> Roster:
    """Read, change and write the list, one process of this machine at a time."""
    with _one_at_a_time(ws.hub_home / "roster.lock"):
        before = read_roster(ws)
        after = change(before)
        if after != before:
            put_record(ws.store, roster_key(), after)
    return after


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:  # the kernel drops the lock of a killed process
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
