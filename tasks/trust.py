"""Whom this process speaks for, and whose word it takes for what: every record is sealed and checked here.

What stands under ``global/`` and ``hub/`` is the hub's word, under ``sites/NAME/`` that hospital's. A hospital has
pinned the hub's key when it joined, and reads no other's records. The hub knows the hospitals' keys from its list.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from pyrage.x25519 import Identity as AgeKey

from model.errors import KeyFileError, SignatureError, TrustError
from tasks.files import json_bytes, write_atomic
from tasks.identity import SIGN_FILE, Identity, have_identity, read_identity
from tasks.keys import fingerprint
from tasks.ledger import roster_key
from tasks.limits import INVITATION, parse_record
from tasks.records import PublicIdentity
from tasks.registered import Roster, registered
from tasks.seal import NOTHING_SEEN, open_seal, seal, split_seal
from tasks.store import Store

HUB = "hub"
PIN_FILE = "hub-identity.json"
"""In a hospital's folder: the hub's public keys, as its invitation told them."""
_KEYS = "keys"
_FRESH_S = 2.0  # a revocation by another process is heeded so soon


def identity_folder(root: Path, name: str) -> Path:
    """Where the keys of hub or hospital lie: in a machine's own folder; in a run of all roles, one below for each."""
    return root if (root / SIGN_FILE).exists() else root / _KEYS / name


def have_all_identities(root: Path, sites: tuple[str, ...]) -> dict[str, PublicIdentity]:
    """Have keys for hub and hospitals in a run of all roles.

    Args:
        root: the run's folder.
        sites: the hospitals.

    Returns:
        The public halves by name, the hub's under ``hub``.

    Raises:
        TrustError: a hospital has the hub's name.
        KeyFileError: a key that is there cannot be used.
    """
    refuse_hubs_name(*sites)
    return {name: have_identity(root / _KEYS / name).public for name in (HUB, *sites)}


def refuse_hubs_name(*sites: str) -> None:
    """Keep the hub's name for the hub.

    Args:
        *sites: names of hospitals.

    Raises:
        TrustError: a hospital has it.
    """
    if HUB in sites:
        raise TrustError(f"a hospital cannot be called '{HUB}'", "site name", "give it another name")


def pin_hub(folder: Path, hub: PublicIdentity) -> None:
    """Write down whose word a hospital takes for the hub's, once.

    Args:
        folder: the hospital's.
        hub: as the invitation tells it.

    Raises:
        TrustError: the hospital has pinned another hub.
        DiskError: it cannot be written.
    """
    refuse_other_hub(folder, hub)
    write_atomic(folder / PIN_FILE, json_bytes(hub.model_dump(mode="json")))


def refuse_other_hub(folder: Path, hub: PublicIdentity) -> None:
    """Keep a hospital with the hub that it has pinned.

    Args:
        folder: the hospital's; without a pin anybody's word would do.
        hub: as the invitation tells it.

    Raises:
        TrustError: the hospital has pinned another hub.
    """
    pinned = pinned_hub(folder)
    if pinned is not None and pinned != hub:
        what = f"the invitation is by {fingerprint(hub.sign)}, this folder knows the hub as {fingerprint(pinned.sign)}"
        mend = "ask the hub by telephone for its fingerprint; only if it has new keys, remove the file and join again"
        raise TrustError(what, str(folder / PIN_FILE), mend)


def pinned_hub(folder: Path) -> PublicIdentity | None:
    """The hub's public keys in a hospital's folder; None where it is no hospital's."""
    path = folder / PIN_FILE
    if not path.exists():
        return None
    return parse_record(path.read_bytes(), PublicIdentity, str(path), INVITATION)


@dataclass
class Trust:
    """The seals of a folder: a hospital's, the hub's, or a run that plays all roles on one machine.

    Attributes:
        root: the folder.
        store: where the hub's list is read.
        position: how many entries of the audit log this process has seen, and the hash of the last: ``12:ab…``.
    """

    root: Path
    store: Store
    position: str = NOTHING_SEEN
    _own: dict[str, Identity] = field(default_factory=dict)
    _roster: tuple[float, Roster] | None = None

    def sealed(self, place: str, record: bytes) -> bytes:
        """Seal a record in the name of whose place it is for.

        Args:
            place: ledger key.
            record: its bytes.

        Returns:
            What goes into the ledger.

        Raises:
            KeyFileError: the key of whose word counts there is not on this machine, or cannot be used.
        """
        if place == roster_key():
            self._roster = None
        return seal(self._identity(author_of(place)).key, place, self.position, record)

    def opened(self, place: str, data: bytes) -> bytes:
        """Check a record's seal.

        Args:
            place: ledger key.
            data: what stands there.

        Returns:
            The record.

        Raises:
            SignatureError: it is not by whose word counts there, or not for this place.
            KeyFileError: this machine has no keys.
        """
        expected = self._expected(place)
        try:
            return open_seal(data, place, expected)
        except SignatureError as error:
            raise SignatureError(
                self._plainly(error.what, place, data, expected), error.where, error.mend
            ) from error

    def saw(self, count: int, sha256: str) -> None:
        """Tell how far the audit log goes; what is sealed from now on says so.

        Args:
            count: of its entries.
            sha256: of the last.
        """
        self.position = f"{count}:{sha256}" if count else NOTHING_SEEN

    def private_key(self, name: str) -> AgeKey:
        """The key that opens what was encrypted to hub or hospital; :class:`~model.errors.KeyFileError` without it."""
        return self._identity(name).age

    def public_key(self, name: str) -> str:
        """The age key that hub or hospital is written to.

        Args:
            name: of a hospital, or ``hub``.

        Returns:
            ``age1…``.

        Raises:
            KeyFileError: it is not known here.
        """
        pinned = pinned_hub(self.root)
        if name == HUB:
            return pinned.age if pinned else self._identity(HUB).public.age
        if pinned:
            return self._identity(name).public.age
        known = self._list().identity(name)
        if known is None:
            mend = f"invite it (again): `cardiofed hub invite {name}`"
            raise KeyFileError(f"the hub has registered no key of '{name}'", roster_key(), mend)
        return known.age

    def _expected(self, place: str) -> str:
        author, pinned = author_of(place), pinned_hub(self.root)
        if author == HUB:
            return pinned.sign if pinned else self._identity(HUB).public.sign
        if pinned:
            return self._identity(author).public.sign
        roster = self._list()
        if roster.identity(author) is None:  # it may have joined a moment ago
            self._roster = None
            roster = self._list()
        known = roster.identity(author)
        if known is None:
            state = "has revoked the key" if roster.is_revoked(author) else "has registered no key"
            mend = f"invite it (again): `cardiofed hub invite {author}`"
            raise SignatureError(f"the hub {state} of '{author}'", place, mend)
        return known.sign

    def _plainly(self, what: str, place: str, data: bytes, expected: str) -> str:
        """What is wrong with a seal, and whose key it is by as far as the hub knows."""
        try:
            key = split_seal(data, place).key
        except SignatureError:
            return what  # there is none
        author = author_of(place)
        if key == expected:
            return f"{what}: changed after '{author}' sealed it, or written for another place"
        if author == HUB or pinned_hub(self.root):
            return what
        known = {k.identity.sign: (name, k.state) for name, keys in self._list().keys.items() for k in keys}
        name, state = known.get(key, ("", ""))
        if name != author:
            whose = f"that of '{name}'" if name else "nobody's that the hub knows"
            return f"{what}: the key is {whose}"
        return f"{what}: the key is one of '{author}' that the hub has {state}"

    def _list(self) -> Roster:
        if self._roster is None or time.monotonic() - self._roster[0] > _FRESH_S:
            self._roster = time.monotonic(), registered(self.store)
        return self._roster[1]

    def _identity(self, name: str) -> Identity:
        if name == HUB and (self.root / PIN_FILE).exists():
            mend = "do it at the hub"
            raise KeyFileError("a hospital's machine cannot speak for the hub", str(self.root), mend)
        if name not in self._own:
            self._own[name] = read_identity(identity_folder(self.root, name))
        return self._own[name]


def author_of(place: str) -> str:
    """Whose word counts under a ledger key: a hospital's name, or ``hub``."""
    top, _, rest = place.partition("/")
    return rest.partition("/")[0] if top == "sites" else HUB


def with_seals(store: Store, root: Path) -> Store:
    """Give a store the keys of a folder.

    Args:
        store: the ledger's.
        root: of a machine, or of a run.

    Returns:
        The same store; records now go in and out.
    """
    store.seals = Trust(root, store)
    return store
