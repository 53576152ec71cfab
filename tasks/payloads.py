"""Packages on their way through the store: padded and encrypted where the round asks for it, and read back.

Where ``privacy.encrypt`` is set: an adapter is encrypted to the hub and its own site, a candidate to its raters and the
hub, a merged step to the key of all members (:mod:`tasks.step_keys`), what it could not carry to the hub. Records name
the hash of the package inside, which its reader checks; the object announces both hashes. Whether an object is
encrypted shows in its first bytes, so that a federation's readers need no setting.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from model.errors import IntegrityError, PackageError
from model.padding import common_length, pad, unpad
from tasks.files import sha256_bytes
from tasks.sealed_box import is_sealed, open_sealed, seal_for
from tasks.step_keys import hub_step_keys, site_step_keys
from tasks.store import Store
from tasks.trust import HUB

_OVERHEAD_BYTES, _READER_BYTES = (
    4096,
    128,
)  # of age's header; beside that, it adds less than a 4096th of the data


def sealed_limit(max_bytes: int) -> int:
    """The most bytes of an object around a package of at most ``max_bytes``."""
    return max_bytes + max_bytes // 4096 + _OVERHEAD_BYTES


def wrap(store: Store, data: bytes, readers: Iterable[str]) -> bytes:
    """A package as it goes into the store.

    Args:
        store: the ledger's, with the keys of a machine or run.
        data: the package.
        readers: hub or sites, by name, that may read it; nobody for a package in the clear.

    Returns:
        The object's bytes.

    Raises:
        TrustError: the key of a reader is not known.
    """
    keys = [store.seals.public_key(name) for name in readers]
    return seal_for(data, keys) if keys else data


def wrap_alike(store: Store, data: bytes, readers: Collection[str], length: int, most_readers: int) -> bytes:
    """A package as an object whose size depends on nothing of its own.

    Args:
        store: the ledger's, with the keys of a machine or run.
        data: the package.
        readers: as in :func:`wrap`.
        length: that all packages of the round are padded to.
        most_readers: that one of them has.

    Returns:
        The object's bytes.

    Raises:
        TrustError: the key of a reader is not known.
    """
    padded = pad(data, length)
    if not readers:
        return padded
    room = (
        sealed_limit(length) + _READER_BYTES * most_readers
    )  # age puts a header of a random length before it
    return pad(wrap(store, padded, readers), common_length([room]))


def unwrap(store: Store, key: str, data: bytes, reader: str) -> bytes:
    """The package in an object.

    Args:
        store: the ledger's, with the reader's keys.
        key: where the object stands.
        data: its bytes.
        reader: hub or site that reads, by name.

    Returns:
        The package; its hash is still to be checked.

    Raises:
        DecryptionError: it was not encrypted for this reader, or was changed since.
        KeyFileError: the reader's key cannot be used.
        PackageError: its padding is not understood.
    """
    alike = "/candidates/" in key
    data = unpad(data) if alike else data
    if not is_sealed(data):
        return data
    own = store.seals.private_key(reader)
    keys = [own]
    if key.endswith("/merged.safetensors"):
        keys = hub_step_keys(store, own) if reader == HUB else site_step_keys(store, reader, own)
    data = open_sealed(data, keys, key)
    return unpad(data) if alike else data


def get_payload(store: Store, key: str, sha256: str, reader: str, max_bytes: int | None = None) -> bytes:
    """Read a package out of the store, decrypted and unpadded where it is.

    Args:
        store: the ledger's, with the reader's keys.
        key: where the object stands.
        sha256: of the package, as its record announced it.
        reader: hub or site that reads, by name.
        max_bytes: of the object; a larger one is refused before it is downloaded.

    Returns:
        The package, which has that hash.

    Raises:
        ObjectMissingError: there is no such object.
        IntegrityError: the package has another hash.
        PackageError: the object is larger, or its padding is not understood.
        DecryptionError: it was not encrypted for this reader, or was changed since.
        KeyFileError: the reader's key cannot be used.
    """
    data = unwrap(store, key, store.get(key, None, max_bytes), reader)
    if (found := sha256_bytes(data)) != sha256:
        what = f"the package has sha256 {found[:12]}…, its record announced {sha256[:12]}…"
        raise IntegrityError(what, key, "have its writer upload it again; do not use it")
    return data


def require_sealed(data: bytes, key: str) -> None:
    """Refuse an object in the clear where the round asks for encryption.

    Args:
        data: the object's bytes.
        key: where it stands.

    Raises:
        PackageError: it is not encrypted.
    """
    if not is_sealed(data):
        mend = "set privacy.encrypt as the round's plan has it, and send it again"
        raise PackageError("the update travels in the clear, this round is encrypted", key, mend)
