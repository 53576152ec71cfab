"""Who takes part and by which key: the hub's list, sealed by the hub, read by everybody."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.ledger import find_record, roster_key
from tasks.records import PublicIdentity, Record
from tasks.store import Store

State = Literal["valid", "replaced", "revoked"]


class SiteKey(Record):
    """A key that a hospital has or had."""

    identity: PublicIdentity
    state: State


class Roster(Record):
    """The hospitals the hub has invited, and every key it has registered; keys are never taken off."""

    sites: tuple[str, ...] = ()
    keys: dict[str, tuple[SiteKey, ...]] = Field({}, description="by hospital, those let go included")
    refused: dict[str, str] = Field({}, description="hospital → why the key that it offers is not registered")

    def identity(self, site: str) -> PublicIdentity | None:
        """A hospital's valid identity; None before it has joined and after it was revoked."""
        return next((key.identity for key in self.keys.get(site, ()) if key.state == "valid"), None)

    def state(self, site: str, identity: PublicIdentity) -> State | None:
        """What a key is to the hub; None for one that it never registered."""
        return next((key.state for key in self.keys.get(site, ()) if key.identity == identity), None)

    def is_revoked(self, site: str) -> bool:
        """Whether the hub has taken a hospital's key back and has registered no other since."""
        return self.identity(site) is None and any(k.state == "revoked" for k in self.keys.get(site, ()))

    def ended(self, site: str) -> str:
        """The signing key that a hospital without a valid one had last; empty for none."""
        keys = self.keys.get(site, ())
        return keys[-1].identity.sign if keys and self.identity(site) is None else ""

    def with_identity(self, site: str, identity: PublicIdentity) -> Roster:
        """The list after a hospital's key was registered; the valid one before it is replaced."""
        others = (key for key in self._ended(site, "replaced") if key.identity != identity)
        return self._with_keys(site, (*others, SiteKey(identity=identity, state="valid")))

    def without_identity(self, site: str, state: State) -> Roster:
        """The list after a hospital's valid key was ended."""
        return self._with_keys(site, self._ended(site, state))

    def _ended(self, site: str, state: State) -> tuple[SiteKey, ...]:
        return tuple(
            SiteKey(identity=key.identity, state=state) if key.state == "valid" else key
            for key in self.keys.get(site, ())
        )

    def _with_keys(self, site: str, keys: tuple[SiteKey, ...]) -> Roster:
        return self.model_copy(update={"keys": self.keys | {site: keys}})


def registered(store: Store) -> Roster:
    """The list as it stands; an empty one before the first invitation."""
    return find_record(store, roster_key(), Roster) or Roster()
