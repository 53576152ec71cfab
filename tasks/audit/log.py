"""The hub's hand on the audit log: it only ever grows, one new object per append, whatever was killed in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from model.errors import AuditError, DiskError, ObjectMissingError
from tasks.audit.entry import (
    GENESIS,
    Entry,
    Fact,
    Head,
    identity_of,
    line_of,
    line_sha256,
    read_line,
    to_second,
)
from tasks.files import write_atomic
from tasks.ledger import audit_head_key, audit_segment_key, find_record, put_record
from tasks.store import ObjectInfo, Store

COPY_FILE = "audit.jsonl"
"""In the hub's folder: its own copy of all lines."""
_MEND = "verify the log with `cardiofed audit verify`; go on only when somebody has explained it"


@dataclass
class Log:
    """All entries of the log, in order.

    Attributes:
        lines: each without line feed.
        signed: so many of them the checkpoint in the ledger covers.
    """

    lines: list[bytes] = field(default_factory=list)
    signed: int = 0

    @property
    def count(self) -> int:
        """Entries."""
        return len(self.lines)

    @property
    def sha256(self) -> str:
        """Of the last line; :data:`~tasks.audit.entry.GENESIS` for none."""
        return line_sha256(self.lines[-1]) if self.lines else GENESIS

    @cached_property
    def entries(self) -> list[Entry]:
        """The lines read; asked for when the log stands."""
        return [read_line(line, f"entry {n}") for n, line in enumerate(self.lines)]

    @cached_property
    def identities(self) -> set[bytes]:
        """Of all facts that it tells."""
        return {identity_of(entry) for entry in self.entries}

    @cached_property
    def objects(self) -> dict[str, Entry]:
        """Ledger key → the entry that told of the object last."""
        return {e.object: e for e in self.entries if e.object}

    def tells(self, info: ObjectInfo) -> bool:
        """Whether the object is told of as it is now, by its size and time."""
        told = self.objects.get(info.key)
        return told is not None and (told.n_bytes, told.time) == (info.size, to_second(info.modified))

    def extend(self, segment: bytes, where: str) -> None:
        """Take the lines of a further segment.

        Args:
            segment: whole lines.
            where: it stands.

        Raises:
            AuditError: it does not go on where the log ends.
        """
        for line in segment.splitlines():
            entry = read_line(line, where)
            if (entry.n, entry.previous) != (self.count, self.sha256):
                raise AuditError(f"entry {self.count} does not follow from the one before it", where, _MEND)
            self.lines.append(line)


def load_log(store: Store, home: Path) -> Log:
    """The log as it stands; segments that a killed hub left without a checkpoint are part of it.

    Args:
        store: the ledger's store.
        home: the hub's folder with its own copy, which is brought up to date; without one all segments are read.

    Returns:
        All entries.

    Raises:
        AuditError: the ledger's log is not the one that this hub wrote; names the entry.
        StoreError: the store does not answer.
    """
    log = Log(_read_copy(home / COPY_FILE))
    known, head = log.count, find_record(store, audit_head_key(), Head)
    if head is None or head.count < log.count:
        _heal(store, log, head.count if head else 0)
    elif head.count == log.count and head.sha256 != log.sha256:
        raise AuditError(f"entry {log.count - 1} is not the one that this hub wrote", audit_head_key(), _MEND)
    while (segment := _find_segment(store, log.count)) is not None:
        log.extend(segment, audit_segment_key(log.count))
    if head is not None and log.count < head.count:
        raise AuditError(f"entry {log.count} is missing", audit_segment_key(log.count), _MEND)
    _keep(home / COPY_FILE, log.lines[known:])
    log.signed = head.count if head else 0
    return log


def append(store: Store, home: Path, log: Log, facts: Sequence[Fact]) -> Log:
    """Write facts down: a segment, then the checkpoint over it, then the hub's own copy.

    Args:
        store: the ledger's store.
        home: the hub's folder.
        log: as :func:`load_log` gave it, under the hub's lease.
        facts: at least one; those without a time get the store's present.

    Returns:
        The longer log.
    """
    lines, previous = [], log.sha256
    now = store.now() if any(fact.time is None for fact in facts) else None
    for n, fact in enumerate(facts, log.count):
        lines.append(line_of(n, fact, fact.time or now or store.now(), previous))
        previous = line_sha256(lines[-1])
    store.put(audit_segment_key(log.count), _text(lines), "application/jsonl")
    longer = sign(store, Log([*log.lines, *lines]))
    _keep(home / COPY_FILE, lines)
    return longer


def sign(store: Store, log: Log) -> Log:
    """Put the checkpoint over a whole log, in the name of the hub; returns it."""
    put_record(store, audit_head_key(), Head(count=log.count, sha256=log.sha256))
    log.signed = log.count
    return log


def _heal(store: Store, log: Log, n: int) -> None:
    """Give back what the store has lost of the log, from the hub's own copy, from entry ``n`` on.

    A segment that is there is not touched; one that says something else is an error. What comes back does so entry by
    entry, since a hospital goes on reading wherever it stopped.
    """
    while n < log.count:
        segment = _find_segment(store, n)
        if segment is None:
            segment = _text(log.lines[n : n + 1])
            store.put(audit_segment_key(n), segment, "application/jsonl")
        for line in segment.splitlines():
            if n < log.count and line != log.lines[n]:
                raise AuditError(f"entry {n} is not the one that this hub wrote", audit_segment_key(n), _MEND)
            n += 1


def _find_segment(store: Store, n: int) -> bytes | None:
    try:
        return store.get(audit_segment_key(n))
    except ObjectMissingError:
        return None


def _text(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _read_copy(path: Path) -> list[bytes]:
    """Whole lines; the last one of a killed process is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        write_atomic(path, whole)
    return whole.splitlines()


def _keep(path: Path, lines: Sequence[bytes]) -> None:
    if not lines:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(_text(lines))
    except OSError as error:
        what = f"cannot write the copy of the audit log: {error.strerror or error}"
        raise DiskError(what, str(path), "free some space and run again") from error
