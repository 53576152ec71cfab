"""Ed25519 keys: a file that only its owner may read, signatures as text, and public keys as text."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from model.errors import KeyFileError, SignatureError
from tasks.files import write_atomic

KIND = "ed25519:"
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Key:
    """A private key in memory."""

    _private: Ed25519PrivateKey

    @property
    def public(self) -> str:
        """Its public half as text: ``ed25519:`` and 32 bytes in base64."""
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return KIND + base64.b64encode(raw).decode()

    def sign(self, data: bytes) -> str:
        """Sign bytes.

        Args:
            data: exactly what is vouched for; say in it what it is and where it belongs.

        Returns:
            The 64 bytes of the signature in base64; equal data give equal signatures.
        """
        return base64.b64encode(self._private.sign(data)).decode()


def new_key(path: Path, passphrase: str = "") -> Key:
    """Make a key and keep it in a file for the owner alone.

    Args:
        path: of the file, PEM (PKCS 8).
        passphrase: that locks it; empty for none.

    Returns:
        The key.

    Raises:
        KeyFileError: there is a file already; a key is never overwritten.
        DiskError: the file cannot be written.
    """
    if path.exists():
        raise KeyFileError(
            "there is a file already", str(path), "move the old key away first, or name another file"
        )
    private = Ed25519PrivateKey.generate()
    lock = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    write_atomic(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock), mode=0o600)
    return Key(private)


def new_token() -> str:
    """The secret of a one-time key as text: 32 random bytes in base64."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def token_key(token: str) -> Key:
    """The one-time key of a secret that :func:`new_token` has made.

    Args:
        token: the secret.

    Returns:
        The key.

    Raises:
        KeyFileError: it is no such secret.
    """
    try:
        return Key(Ed25519PrivateKey.from_private_bytes(_decoded(token, _KEY_BYTES)))
    except ValueError as error:
        raise KeyFileError("the one-time key is none", "invitation", "ask the hub for a new one") from error


def read_key(path: Path, passphrase: str = "") -> Key:
    """Read a key that :func:`new_key` has written.

    Args:
        path: of the file.
        passphrase: that it was locked with; empty for none.

    Returns:
        The key.

    Raises:
        KeyFileError: no such file, others may read it, the passphrase is wrong or missing, or it is no such key.
    """
    try:
        if path.stat().st_mode & _OTHERS:
            raise KeyFileError(
                "others on this machine may read the private key", str(path), f"chmod 600 {path}"
            )
        private = load_pem_private_key(path.read_bytes(), passphrase.encode() or None)
    except OSError as error:
        mend = "make one with `cardiofed keys new`, or bring it back from the backup"
        raise KeyFileError(f"cannot be read: {error.strerror}", str(path), mend) from error
    except (TypeError, ValueError) as error:
        mend = "give its passphrase in CARDIOFED_KEY_PASSPHRASE; none for a key without"
        raise KeyFileError("the key cannot be opened", str(path), mend) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError("this is no Ed25519 key", str(path), "make one with `cardiofed keys new`")
    return Key(private)


def verify(public: str, data: bytes, signature: str, where: str) -> None:
    """Check that the owner of a public key signed exactly these bytes.

    Args:
        public: the key as text.
        data: the bytes.
        signature: as :meth:`Key.sign` gave it.
        where: the bytes came from, for the error message.

    Raises:
        SignatureError: it is no signature of these bytes by this key, or the key is no key.
    """
    try:
        Ed25519PublicKey.from_public_bytes(_public_bytes(public)).verify(
            _decoded(signature, _SIGNATURE_BYTES), data
        )
    except (InvalidSignature, ValueError) as error:
        what = f"the signature is not the one that {fingerprint(public)} makes of these bytes"
        raise SignatureError(
            what, where, "take the bytes as not written; ask their author to send them again"
        ) from error


def fingerprint(public: str) -> str:
    """A public key in short, for people to compare: 16 hexadecimal digits of its sha256."""
    return hashlib.sha256(public.encode()).hexdigest()[:16]


def _public_bytes(public: str) -> bytes:
    if not public.startswith(KIND):
        raise ValueError("another kind of key")
    return _decoded(public.removeprefix(KIND), _KEY_BYTES)


def _decoded(text: str, size: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("no base64") from error
    if len(data) != size:
        raise ValueError("wrong length")
    if base64.b64encode(data).decode() != text:
        raise ValueError("two spellings of the same bytes")
    return data
