"""Bytes that only chosen keys open: age with X25519, in one place for all that is encrypted."""

from __future__ import annotations

from collections.abc import Iterable

import pyrage
from pyrage.x25519 import Identity as AgeKey
from pyrage.x25519 import Recipient

from model.errors import DecryptionError, KeyFileError

MAGIC = b"age-encryption.org/v1\n"


def seal_for(data: bytes, recipients: Iterable[str]) -> bytes:
    """Encrypt for several keys at once; who holds any of them reads it, and nobody sees whose they are.

    Args:
        data: any bytes.
        recipients: public keys, ``age1…``; the same one twice counts once.

    Returns:
        An age file, another one at every call, some hundred bytes longer than ``data``.

    Raises:
        KeyFileError: no recipients, or one that is no age key.
    """
    try:
        sealed: bytes = pyrage.encrypt(data, [Recipient.from_str(text) for text in sorted(set(recipients))])
    except (pyrage.RecipientError, pyrage.EncryptError) as error:
        mend = "have its owner join again, so that the hub learns the key"
        raise KeyFileError(
            f"cannot be encrypted to: {error}", "public keys of the federation", mend
        ) from error
    return sealed


def is_sealed(data: bytes) -> bool:
    """Whether bytes say of themselves that they are encrypted."""
    return data.startswith(MAGIC)


def open_sealed(data: bytes, keys: Iterable[AgeKey], where: str) -> bytes:
    """Decrypt what was encrypted for one of these keys.

    Args:
        data: of :func:`seal_for`.
        keys: private keys to try.
        where: it stood, for the error message.

    Returns:
        The bytes.

    Raises:
        DecryptionError: none of the keys opens it, or it was changed or cut.
    """
    try:
        opened: bytes = pyrage.decrypt(data, list(keys))
    except pyrage.DecryptError as error:
        if "matching" in str(error):
            mend = "bring back the key it was encrypted for, or have its writer publish it again for this one"
            raise DecryptionError(
                "it was encrypted for other keys than this machine has", where, mend
            ) from error
        mend = "have its writer publish it again; do not use it"
        raise DecryptionError("it was changed or cut after it was encrypted", where, mend) from error
    return opened
