"""What the audit log tells, for people: all of it, a round, or everything that has left one hospital."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.audit.chain import read_lines
from tasks.audit.entry import Entry
from tasks.audit.source import Source
from tasks.ledger import AUDIT, audit_head_key, site_prefix


def read_entries(source: Source) -> list[Entry]:
    """All entries as they stand, unverified."""
    keys = [key for key in source.keys(AUDIT) if key != audit_head_key()]
    return read_lines([line for key in keys for line in (source.read(key) or b"").splitlines()])[0]


def departures(entries: Sequence[Entry], site: str) -> list[Entry]:
    """Everything that ever left a hospital: what was sent again under the same name and is not the same counts again.

    Args:
        entries: of the log.
        site: its name.

    Returns:
        The entries that tell of its objects, in order, each object and hash once.

    Raises:
        ConfigError: the name cannot be used.
    """
    prefix, seen, left = site_prefix(site), set(), []
    for entry in entries:
        mark = (entry.object, entry.sha256)
        if entry.object and entry.object.startswith(prefix) and mark not in seen:
            seen.add(mark)
            left.append(entry)
    return left


def total_bytes(entries: Sequence[Entry]) -> int:
    """Sum of the objects' sizes."""
    return sum(entry.n_bytes or 0 for entry in entries)


def said(entry: Entry) -> str:
    """An entry's facts in one line."""
    parts = [f"{key} {_short(value)}" for key, value in sorted(entry.facts.items())]
    return "; ".join(parts)


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = f"{text[:12]}…" if len(text) == 64 and " " not in text else text
    return text if len(text) <= 60 else f"{text[:59]}…"
