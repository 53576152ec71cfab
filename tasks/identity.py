"""Who a machine is to the others: a key that signs, one that opens what was encrypted to it, their public halves."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from pyrage import IdentityError
from pyrage.x25519 import Identity as AgeKey

from model.errors import KeyFileError
from tasks.files import write_atomic
from tasks.keys import Key, fingerprint, new_key, read_key
from tasks.records import PublicIdentity
from tasks.settings import key_passphrase

SIGN_FILE, AGE_FILE = "identity.pem", "age.key"
_MEND = "make one with `cardiofed keys new`, or bring it back from the backup"


@dataclass(frozen=True)
class Identity:
    """A machine's private keys, in memory.

    Attributes:
        key: Ed25519, for signatures.
        age: X25519, for what is encrypted to this machine.
    """

    key: Key
    age: AgeKey

    @property
    def public(self) -> PublicIdentity:
        """The halves that everybody may know."""
        return PublicIdentity(sign=self.key.public, age=str(self.age.to_public()))


def new_identity(folder: Path) -> Identity:
    """Make both keys of a machine and keep them in its folder, for their owner alone to read.

    CARDIOFED_KEY_PASSPHRASE locks the signing key; age's is as open as its file.

    Args:
        folder: the machine's own.

    Returns:
        The identity.

    Raises:
        KeyFileError: there is a signing key already; a key is never overwritten.
        DiskError: a file cannot be written.
    """
    if not (folder / SIGN_FILE).exists():  # an age key without it is left from a kill between the two
        write_atomic(folder / AGE_FILE, f"{AgeKey.generate()}\n".encode(), mode=0o600)
    new_key(folder / SIGN_FILE, key_passphrase())
    return read_identity(folder)


def read_identity(folder: Path) -> Identity:
    """Read what :func:`new_identity` has written.

    Args:
        folder: the machine's own.

    Returns:
        The identity.

    Raises:
        KeyFileError: a file is missing, open to others, locked by another passphrase, or no key.
    """
    return Identity(read_key(folder / SIGN_FILE, key_passphrase()), _read_age(folder / AGE_FILE))


def have_identity(folder: Path) -> Identity:
    """Read a machine's identity, made first where there is none.

    Args:
        folder: the machine's own.

    Returns:
        The identity.

    Raises:
        KeyFileError: a key that is there cannot be used.
        DiskError: a file cannot be written.
    """
    return read_identity(folder) if (folder / SIGN_FILE).exists() else new_identity(folder)


def renew_identity(folder: Path) -> Identity:
    """Make new keys in place of a machine's old ones, which are gone then.

    Args:
        folder: the machine's own, with keys.

    Returns:
        The new identity.

    Raises:
        DiskError: a file cannot be written.
    """
    (folder / SIGN_FILE).unlink(missing_ok=True)
    return new_identity(folder)


def described(public: PublicIdentity) -> str:
    """An identity in one line, for people to compare over the telephone."""
    return f"{fingerprint(public.sign)}-{fingerprint(public.age)}"


def _read_age(path: Path) -> AgeKey:
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            what = "others on this machine may read the private key"
            raise KeyFileError(what, str(path), f"chmod 600 {path}")
        return AgeKey.from_str(path.read_text().strip())
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}", str(path), _MEND) from error
    except (IdentityError, ValueError) as error:
        raise KeyFileError("this is no age key", str(path), _MEND) from error
