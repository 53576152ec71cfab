"""The facts that the objects of a site tell: everything that has left it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from tasks.audit.entry import Fact, Kind
from tasks.audit.log import Log
from tasks.ledger import site_prefix
from tasks.store import ObjectInfo, Store

ADAPTER = "adapter.safetensors"
RENEWED = ("contact.json", "doctor.json", "visit.json")
"""Signs of life, trials of rights and visits, written again and again: told of once, without a hash."""
KINDS: dict[str, Kind] = {
    "card.json": "joined",
    "update.json": "uploaded",
    "ratings.json": "rated",
    "verdict.json": "judged",
    "evaluation.json": "evaluated",
}
_PLACE = re.compile(r"sites/(?P<site>[^/]+)/(rounds/(?P<round>\d{4})/)?(?P<name>.+)")


def facts_of_keys(store: Store, log: Log, keys: Collection[str]) -> Iterator[Fact]:
    """What the log does not tell yet of these objects.

    Args:
        store: the ledger's store.
        log: as it stands.
        keys: of sites' objects; one request each.

    Yields:
        A fact for each object that is there and new.
    """
    for key in keys:
        found = store.look(key)
        if found is not None and not log.tells(found[0]):
            yield _fact(found[0], found[1])


def facts_of_all(
    store: Store, log: Log, site: str, revealed: Callable[[str, int | None], bool]
) -> Iterator[Fact]:
    """What the log does not tell yet of anything that lies under a site's prefix.

    Args:
        store: the ledger's store.
        log: as it stands.
        site: whose prefix.
        revealed: whether nobody will rate the adapter of a site and a round blindly any more; of the others, hash
            and size stay untold.

    Yields:
        A fact for each object; one listing, and one request for every new object.
    """
    for info in store.list(site_prefix(site)):
        number, name = place_of(info.key)
        if name in RENEWED:
            if info.key not in log.objects:
                yield _fact(info, None)
        elif not log.tells(info) and (name != ADAPTER or revealed(site, number)):
            yield _fact(info, store.sha256_of(info.key))


def place_of(key: str) -> tuple[int | None, str]:
    """Round and name of a site's object."""
    place = _PLACE.fullmatch(key)
    if place is None:
        return None, key
    return (int(place["round"]) if place["round"] else None), place["name"]


def _fact(info: ObjectInfo, sha256: str | None) -> Fact:
    number, name = place_of(info.key)
    kind, site = KINDS.get(name, "uploaded"), info.key.split("/")[1]
    return Fact(kind, number, site, info.key, sha256, info.size, {}, info.modified)
