"""A machine's identity: made once, kept for its owner alone, locked where a passphrase is set."""

from __future__ import annotations

import stat
from pathlib import Path

import pyrage
import pytest
from pyrage.x25519 import Recipient
from typer.testing import CliRunner

from flows.cli import app
from model.errors import KeyFileError
from tasks.identity import AGE_FILE, SIGN_FILE, described, have_identity, new_identity, read_identity

PASSPHRASE = "CARDIOFED_KEY_PASSPHRASE"


def test_an_identity_read_again_is_the_same(tmp_path: Path) -> None:
    made = new_identity(tmp_path)
    assert read_identity(tmp_path).public == have_identity(tmp_path).public == made.public


def test_what_is_encrypted_to_an_identity_opens_with_it(tmp_path: Path) -> None:
    own = new_identity(tmp_path)
    sealed = pyrage.encrypt(b"adapter", [Recipient.from_str(own.public.age)])
    assert pyrage.decrypt(sealed, [own.age]) == b"adapter"


@pytest.mark.parametrize("name", [SIGN_FILE, AGE_FILE])
def test_both_keys_are_for_their_owner_alone(tmp_path: Path, name: str) -> None:
    new_identity(tmp_path)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    (tmp_path / name).chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_identity(tmp_path)


@pytest.mark.parametrize("name", [SIGN_FILE, AGE_FILE])
def test_a_missing_or_broken_key_is_named(tmp_path: Path, name: str) -> None:
    new_identity(tmp_path)
    (tmp_path / name).write_text("no key")
    with pytest.raises(KeyFileError, match=name):
        read_identity(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(KeyFileError, match="cardiofed keys new"):
        read_identity(tmp_path)


def test_a_wrong_passphrase_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE, "open sesame")
    made = new_identity(tmp_path)
    assert read_identity(tmp_path).public == made.public
    for wrong in ("", "open barley"):
        monkeypatch.setenv(PASSPHRASE, wrong)
        with pytest.raises(KeyFileError, match="passphrase"):
            read_identity(tmp_path)


def test_the_command_makes_keys_once_and_shows_them_without_secrets(tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["keys", "new", "--home", str(tmp_path)])
    shown = CliRunner().invoke(app, ["keys", "show", "--home", str(tmp_path)])
    assert made.exit_code == shown.exit_code == 0
    assert made.output == shown.output
    assert described(read_identity(tmp_path).public) in shown.output
    assert "SECRET" not in shown.output
    again = CliRunner().invoke(app, ["keys", "new", "--home", str(tmp_path)])
    assert isinstance(again.exception, KeyFileError)
    assert CliRunner().invoke(app, ["keys", "show", "--home", str(tmp_path)]).output == shown.output
