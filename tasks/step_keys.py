"""The keys that open published steps: one for all members, another once somebody has gone; every site gets all so far.

The hub keeps them in ``hub/keys.age``, encrypted to itself, with who has them. A member finds them in
``global/keys/<site>.age``, encrypted to it alone. So a late joiner reads the steps before its time, and whoever
was let go none after.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, ValidationError
from pyrage.x25519 import Identity as AgeKey

from model.errors import DecryptionError, ObjectMissingError
from tasks.files import json_bytes
from tasks.ledger import hub_keys_key, site_keys_key
from tasks.sealed_box import open_sealed, seal_for
from tasks.store import Store

_MOST_BYTES = 1_000_000


class KeyRing(BaseModel):
    """What the hub keeps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[str, ...] = ()
    """AGE-SECRET-KEY-1…, oldest first; the last one is in use"""
    holders: dict[str, str] = {}
    """site → public age key that it was given them for"""


def deliver_step_keys(store: Store, hub: AgeKey, members: Mapping[str, str]) -> str:
    """Have a key for the steps to come that exactly these members hold, and give it to them.

    Args:
        store: the ledger's.
        hub: the hub's private key.
        members: site → public age key.

    Returns:
        The public key that steps are encrypted to. It is a new one when somebody has it who is no member any more, or
        is one by another key. What is delivered already is left as it is.

    Raises:
        DecryptionError: the hub's key ring was encrypted for another key.
        StoreError: the store does not answer.
    """
    ring = _read_ring(store, hub)
    gone = any(members.get(site) != key for site, key in ring.holders.items())
    keys = ring.keys if ring.keys and not gone else (*ring.keys, str(AgeKey.generate()))
    after = KeyRing(keys=keys, holders=dict(members))
    told = "\n".join(keys).encode()
    for site, key in sorted(members.items()):
        known = keys == ring.keys and ring.holders.get(site) == key and store.exists(site_keys_key(site))
        if not known:
            store.put(site_keys_key(site), seal_for(told, [key]))
    if after != ring:
        ring_bytes = json_bytes(after.model_dump(mode="json"))
        store.put(hub_keys_key(), seal_for(ring_bytes, [str(hub.to_public())]))
    return str(AgeKey.from_str(keys[-1]).to_public())


def hub_step_keys(store: Store, hub: AgeKey) -> list[AgeKey]:
    """All keys of published steps, for the hub; none before the first round."""
    return [AgeKey.from_str(key) for key in _read_ring(store, hub).keys]


def current_step_key(store: Store, hub: AgeKey) -> str:
    """The public key that steps are encrypted to now.

    Args:
        store: the ledger's.
        hub: the hub's private key.

    Returns:
        The newest of the ring.

    Raises:
        DecryptionError: the ring was encrypted for another key, or is gone.
    """
    keys = hub_step_keys(store, hub)
    if not keys:
        mend = "bring it back from a backup of the store"
        raise DecryptionError("the hub has no keys of published steps", hub_keys_key(), mend)
    return str(keys[-1].to_public())


def site_step_keys(store: Store, site: str, own: AgeKey) -> list[AgeKey]:
    """All keys of published steps that a site was given.

    Args:
        store: the ledger's.
        site: whose.
        own: its private key.

    Returns:
        Oldest first.

    Raises:
        DecryptionError: they were given to another key, or not at all.
    """
    key = site_keys_key(site)
    try:
        told = open_sealed(store.get(key, max_bytes=_MOST_BYTES), [own], key)
    except ObjectMissingError as error:
        mend = "they come when the hub opens a round with this site; wait for that"
        raise DecryptionError("this site was given no keys of published steps", key, mend) from error
    return [AgeKey.from_str(line) for line in told.decode().split()]


def _read_ring(store: Store, hub: AgeKey) -> KeyRing:
    key = hub_keys_key()
    try:
        data = open_sealed(store.get(key, max_bytes=_MOST_BYTES), [hub], key)
        return KeyRing.model_validate_json(data)
    except ObjectMissingError:
        return KeyRing()
    except ValidationError as error:
        raise DecryptionError(
            "this is no key ring", key, "bring it back from a backup of the store"
        ) from error
