"""Private keys stay private, and a signature speaks for exactly its bytes."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from model.errors import KeyFileError, SignatureError
from tasks.keys import Key, fingerprint, new_key, read_key, verify


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return new_key(tmp_path / "key.pem")


def test_a_key_read_again_is_the_same_key(tmp_path: Path, key: Key) -> None:
    assert read_key(tmp_path / "key.pem").public == key.public


def test_a_new_key_is_for_its_owner_alone(tmp_path: Path, key: Key) -> None:
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def test_a_signature_holds_for_its_bytes(key: Key) -> None:
    verify(key.public, b"bytes", key.sign(b"bytes"), "here")


@pytest.mark.parametrize(
    "spoil", [lambda s: "", lambda s: s[:-8], lambda s: "A" + s[1:] if s[0] != "A" else "B" + s[1:]]
)
def test_a_spoilt_signature_is_refused(key: Key, spoil: Callable[[str], str]) -> None:
    with pytest.raises(SignatureError, match=fingerprint(key.public)):
        verify(key.public, b"bytes", spoil(key.sign(b"bytes")), "here")


def test_a_signature_of_other_bytes_is_refused(key: Key) -> None:
    with pytest.raises(SignatureError):
        verify(key.public, b"other", key.sign(b"bytes"), "here")


@pytest.mark.parametrize("public", ["", "rsa:AAAA", "ed25519:AAAA", "ed25519:ü"])
def test_a_public_key_that_is_none_verifies_nothing(key: Key, public: str) -> None:
    with pytest.raises(SignatureError):
        verify(public, b"bytes", key.sign(b"bytes"), "here")


def test_a_key_is_never_overwritten(tmp_path: Path, key: Key) -> None:
    with pytest.raises(KeyFileError, match="already"):
        new_key(tmp_path / "key.pem")
    assert read_key(tmp_path / "key.pem").public == key.public


def test_a_key_that_others_may_read_is_refused(tmp_path: Path, key: Key) -> None:
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_key(tmp_path / "key.pem")


def test_a_locked_key_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    made = new_key(tmp_path / "locked.pem", "open sesame")
    assert read_key(tmp_path / "locked.pem", "open sesame").public == made.public
    for wrong in ("", "open barley"):
        with pytest.raises(KeyFileError, match="passphrase"):
            read_key(tmp_path / "locked.pem", wrong)


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError):
        read_key(path)


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cardiofed keys new"):
        read_key(tmp_path / "none.pem")
