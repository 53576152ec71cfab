"""What stands in the audit log: entries, one JSON line each, and the hub's signed word for how many there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field, JsonValue

from model.errors import AuditError, PackageError
from tasks.files import json_bytes, sha256_bytes
from tasks.limits import Limits, parse_record
from tasks.records import Record, Sha256

Kind = Literal[
    "founded",
    "members",
    "invited",
    "dismissed",
    "listed",
    "key",
    "joined",
    "released",
    "started",
    "configured",
    "opened",
    "uploaded",
    "drawn",
    "admitted",
    "quarantined",
    "absent",
    "rated",
    "merged",
    "weighted",
    "judged",
    "closed",
    "unblinded",
    "evaluated",
    "versioned",
    "reported",
]
"""In the order in which a round brings them. ``listed``: the list of the invited and their keys was written;
``drawn``: candidates and raters stand; ``absent``: no update speaks for the site; ``uploaded``: whatever else left a
site."""

GENESIS = "0" * 64
"""What the first entry holds as the hash of the one before."""

LINE = Limits(8_000_000)


class Entry(Record):
    """One fact."""

    n: int = Field(ge=0, description="its number, without gaps")
    time: datetime = Field(description="by the store's clock; of the object, where there is one")
    kind: Kind
    round: int | None = None
    site: str | None = None
    object: str | None = Field(None, description="ledger key that the fact is read from")
    sha256: Sha256 | None = Field(None, description="of the object")
    n_bytes: int | None = Field(None, description="of the object")
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    previous: Sha256 = Field(description="of the line before, without its line feed")


class Head(Record):
    """The log as it stands: sealed by the hub, a checkpoint."""

    count: int = Field(ge=1, description="entries")
    sha256: Sha256 = Field(description="of the last line, and so of all before it")


@dataclass(frozen=True)
class Fact:
    """What an entry shall say; see :class:`Entry`."""

    kind: Kind
    round: int | None = None
    site: str | None = None
    object: str | None = None
    sha256: str | None = None
    n_bytes: int | None = None
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    time: datetime | None = None
    """by the store's clock; None for the moment of writing"""

    @property
    def identity(self) -> bytes:
        """Equal for facts that say the same, whenever they were written."""
        return _identity(self)


def identity_of(entry: Entry) -> bytes:
    """As :attr:`Fact.identity`, of a fact that was written down."""
    return _identity(entry)


def line_of(n: int, fact: Fact, time: datetime, previous: str) -> bytes:
    """An entry's line.

    Args:
        n: its number.
        fact: what it says.
        time: of the fact, or of writing it down.
        previous: sha256 of the line before, or :data:`GENESIS`.

    Returns:
        Canonical JSON without a line feed; fields without value are left out.
    """
    entry = Entry(
        n=n,
        time=to_second(time),
        kind=fact.kind,
        round=fact.round,
        site=fact.site,
        object=fact.object,
        sha256=fact.sha256,
        n_bytes=fact.n_bytes,
        facts=dict(fact.facts),
        previous=previous,
    )
    return json_bytes(entry.model_dump(mode="json", exclude_none=True)).rstrip(b"\n")


def read_line(line: bytes, where: str) -> Entry:
    """An entry from its line.

    Args:
        line: of the log, without its newline.
        where: it stands, for the error.

    Returns:
        What it says.

    Raises:
        AuditError: it is no entry.
    """
    try:
        return parse_record(line, Entry, where, LINE)
    except PackageError as error:
        raise AuditError(
            error.what, where, "have the hub bring it back from `audit.jsonl` of its folder"
        ) from error


def line_sha256(line: bytes) -> str:
    """The hash that the next entry holds of a line."""
    return sha256_bytes(line)


def to_second(time: datetime) -> datetime:
    """A moment as entries hold it: a listing tells milliseconds, a header only seconds."""
    return time.astimezone(UTC).replace(microsecond=0)


def _identity(said: Fact | Entry) -> bytes:
    return json_bytes([said.kind, said.round, said.site, said.object, said.sha256, dict(said.facts)])
