"""Keyed hashes for patients: the same patient, the same id; without the site's key nobody gets back."""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import secrets
from collections.abc import Mapping
from pathlib import Path

from model.errors import CohortError, KeyFileError
from tasks.cases import printable
from tasks.files import write_atomic

KEY_FILE, MAP_FILE = "pseudonyms.key", "patients.csv"
_KEY_BYTES, _DIGITS = 32, 16
_OTHERS = 0o077


def pseudonym(key: bytes, name: str) -> str:
    """First 16 hexadecimal digits of HMAC-SHA256 of a patient's name under the site's key."""
    return hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:_DIGITS]


def site_key(private: Path) -> bytes:
    """The site's key, made at its first import.

    Args:
        private: the site's own folder, which never travels.

    Returns:
        32 random bytes.

    Raises:
        KeyFileError: others on this machine may read it, or it is no key.
        DiskError: it cannot be written.
    """
    path = private / KEY_FILE
    if not path.exists():
        write_atomic(path, secrets.token_hex(_KEY_BYTES).encode() + b"\n", mode=0o600)
        private.chmod(0o700)
    if path.stat().st_mode & _OTHERS:
        raise KeyFileError("others on this machine may read the key", str(path), f"chmod 600 {path}")
    try:
        key = bytes.fromhex(path.read_text("ascii"))
    except (OSError, ValueError) as error:
        mend = "bring it back from the backup; another key gives other ids"
        raise KeyFileError(f"no usable key of pseudonyms: {error}", str(path), mend) from error
    if len(key) != _KEY_BYTES:
        raise KeyFileError("the key is cut short", str(path), "bring it back from the backup")
    return key


def keep_map(private: Path, found: Mapping[str, tuple[str, Path]]) -> None:
    """Write down at the site whose id is whose, beside what earlier imports wrote.

    Args:
        private: the site's own folder.
        found: id → the archive's name of the patient, and where it lies.

    Raises:
        CohortError: the map there is not readable, so that it would be lost.
        DiskError: it cannot be written.
    """
    path = private / MAP_FILE
    known: dict[str, tuple[str, str]] = {}
    if path.exists():
        try:
            lines = csv.DictReader(io.StringIO(path.read_text("utf-8")))
            known = {line["patient"]: (line["name"], line["where"]) for line in lines}
        except (OSError, ValueError, KeyError, csv.Error) as error:
            mend = "bring it back from the backup, or move it away"
            raise CohortError(f"the map of pseudonyms is damaged: {error}", str(path), mend) from error
    known |= {patient: (name, printable(where)) for patient, (name, where) in found.items()}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("patient", "name", "where"))
    rows.writerows((patient, *known[patient]) for patient in sorted(known))
    write_atomic(path, text.getvalue().encode(), mode=0o600)
