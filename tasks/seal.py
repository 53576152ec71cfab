"""The seal of a record: one line before its bytes that says whose they are and where they belong.

A sealed record is ``cardiofed-seal 1 KEY POSITION SIGNATURE\\n`` and then the record as it is. The signature is over
``cardiofed-seal 1\\nKEY\\nPLACE\\nPOSITION\\n`` and the record. PLACE, the ledger key, is not in the line: it is where
the record was found, so bytes that are copied to another site, round or kind of record hold no valid seal there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn, Protocol

from pyrage.x25519 import Identity as AgeKey

from model.errors import SignatureError, TrustError
from tasks.keys import Key, fingerprint, verify

SEAL_BYTES = 256
"""The longest such line; the usual one has 163 to 237."""
NOTHING_SEEN = "0:-"
"""Position of a writer that has seen no entry of the audit log."""
_LINE = re.compile(
    rb"cardiofed-seal 1 (ed25519:[A-Za-z0-9+/]{43}=) ([0-9]{1,12}:(?:-|[0-9a-f]{64})) ([A-Za-z0-9+/]{86}==)\n"
)
_MEND = "take it as not written; ask its author to write it again, and find out who else could"


class Seals(Protocol):
    """Whom a process speaks for, and whose word it takes for what; see :mod:`tasks.trust`."""

    def sealed(self, place: str, record: bytes) -> bytes:
        """A record as it goes into the ledger at ``place``."""

    def opened(self, place: str, data: bytes) -> bytes:
        """The record in what stood at ``place``, once its seal has been checked."""

    def private_key(self, name: str) -> AgeKey:
        """The key that opens what was encrypted to hub or hospital."""

    def public_key(self, name: str) -> str:
        """The key that is encrypted to, ``age1…``, of hub or hospital."""

    def saw(self, count: int, sha256: str) -> None:
        """The audit log has so many entries, the last with this hash; what is sealed from now on says so."""


class NoSeals:
    """What a store has that was opened for nobody: bytes pass, records do not."""

    def sealed(self, place: str, record: bytes) -> bytes:
        """See :class:`Seals`."""
        _refuse(place)

    def opened(self, place: str, data: bytes) -> bytes:
        """See :class:`Seals`."""
        _refuse(place)

    def private_key(self, name: str) -> AgeKey:
        """See :class:`Seals`."""
        _refuse(name)

    def public_key(self, name: str) -> str:
        """See :class:`Seals`."""
        _refuse(name)

    def saw(self, count: int, sha256: str) -> None:
        """See :class:`Seals`."""


@dataclass(frozen=True)
class Sealed:
    """A record with the seal it carries, not yet checked.

    Attributes:
        key: public key of who claims to have written it.
        position: how many entries of the audit log the writer had seen, and the hash of the last.
        signature: in base64.
        record: the bytes that are vouched for.
    """

    key: str
    position: str
    signature: str
    record: bytes

    def check(self, place: str) -> None:
        """Check that the owner of ``key`` wrote exactly this record for exactly this place.

        Args:
            place: ledger key that it stands under.

        Raises:
            SignatureError: it is another record, or was written for another place.
        """
        verify(self.key, _vouched(self.key, place, self.position, self.record), self.signature, place)


def seal(key: Key, place: str, position: str, record: bytes) -> bytes:
    """Seal a record.

    Args:
        key: of its author.
        place: ledger key that it will stand under.
        position: of the audit log's last entry that the author has seen, ``NUMBER:SHA256``.
        record: the bytes.

    Returns:
        The line and the record.
    """
    public = key.public
    line = f"cardiofed-seal 1 {public} {position} {key.sign(_vouched(public, place, position, record))}\n"
    return line.encode() + record


def split_seal(data: bytes, place: str) -> Sealed:
    """Part a record from its seal; nothing is checked but the line's form.

    Args:
        data: what stood in the ledger.
        place: ledger key that it stood under, for the error message.

    Returns:
        Both.

    Raises:
        SignatureError: it begins with no seal.
    """
    line = _LINE.match(data[:SEAL_BYTES])
    if line is None:
        raise SignatureError("it carries no seal", place, _MEND)
    key, position, signature = (part.decode() for part in line.groups())
    return Sealed(key, position, signature, data[line.end() :])


def open_seal(data: bytes, place: str, expected: str) -> bytes:
    """The record in sealed bytes, when the expected author wrote it for this place.

    Args:
        data: what stood in the ledger.
        place: ledger key that it stood under.
        expected: public key of whose word counts there.

    Returns:
        The record.

    Raises:
        SignatureError: no seal, another author's, or one for another record or place.
    """
    found = split_seal(data, place)
    if found.key != expected:
        what = f"it is sealed by {fingerprint(found.key)}, {fingerprint(expected)} was expected"
        raise SignatureError(what, place, _MEND)
    found.check(place)
    return found.record


def _vouched(key: str, place: str, position: str, record: bytes) -> bytes:
    return f"cardiofed-seal 1\n{key}\n{place}\n{position}\n".encode() + record


def _refuse(place: str) -> NoReturn:
    what = "this process was given no keys, so it neither writes nor believes a record"
    raise TrustError(what, place, "open the store through the folder of a machine or a run")
