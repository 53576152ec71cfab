"""Verify an audit log against all that lies beside it, without trusting the hub or the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.audit.chain import Fault, Witness, find_faults, read_lines
from tasks.audit.entry import Entry, Head
from tasks.audit.recompute import LackingError, round_faults
from tasks.audit.seals import Record, author_keys, read_records, seal_faults, witnesses
from tasks.audit.source import Remembered, Source
from tasks.files import sha256_bytes
from tasks.keys import fingerprint
from tasks.ledger import AUDIT, FEDERATION, audit_head_key, audit_segment_key, roster_key
from tasks.limits import OF_HUB, parse_record
from tasks.trust import HUB

_CHANGING = (FEDERATION, roster_key())


@dataclass(frozen=True)
class Findings:
    """What an audit found.

    Attributes:
        entries: in the log.
        objects: of the ledger that are what the log tells of them.
        seals: records that are their author's word.
        positions: of the log, that authors of records had seen and signed.
        rounds: weighed again.
        faults: by number of the entry; empty for a log that can be believed.
        notes: what could not be checked, and why.
    """

    entries: int
    objects: int
    seals: int
    positions: int
    rounds: int
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]


def verify_log(ledger: Source, hub_key: str | None = None) -> Findings:
    """Check chain, numbers, seals, what their authors had seen, the objects that entries tell of, and every weight.

    Args:
        ledger: the ledger, or a copy of it.
        hub_key: the hub's public key, from elsewhere; when left out, the checkpoint's own is believed and named.

    Returns:
        What was found.

    Raises:
        StoreError: the store does not answer.
    """
    source, notes = Remembered(ledger), list[str]()
    records = read_records(source)
    lines, faults = _lines(source)
    entries = _by_number(read_lines(lines)[0])
    hub = hub_key or _own_word(records, notes)
    keys = author_keys(entries, hub)
    checkpoint, spoilt = _checkpoint(source, records, hub, len(lines))
    seen = list(witnesses(records, keys))
    seals, unsealed = seal_faults(records, entries, keys)
    faults += spoilt + find_faults(lines, [*checkpoint, *seen]) + unsealed
    agreed, contradicted = _objects(source, records, entries, notes)
    faults += contradicted
    rounds = 0
    for number in sorted({e.round for e in entries if e.round and e.kind == "unblinded"}):
        try:
            faults += round_faults(source, entries, number)
            rounds += 1
        except LackingError as lacking:
            notes.append(f"round {number} was not weighed again: this copy lacks {lacking}")
    faults.sort(key=lambda fault: fault.n)
    return Findings(len(lines), agreed, seals, len(seen), rounds, tuple(faults), tuple(notes))


def _by_number(entries: Sequence[Entry]) -> list[Entry]:
    return sorted({e.n: e for e in reversed(entries)}.values(), key=lambda e: e.n)


def _own_word(records: Sequence[Record], notes: list[str]) -> str:
    seal = next((r.seal for r in records if r.key == audit_head_key()), None)
    if seal is None:
        return ""
    notes.append(f"the hub's key is {fingerprint(seal.key)} by its own word: compare, or give --hub-key")
    return seal.key


def _lines(source: Source) -> tuple[list[bytes], list[Fault]]:
    """All lines in the order of their segments' names; a segment must begin with the entry that it is named after."""
    lines: list[bytes] = []
    faults: list[Fault] = []
    for key in source.keys(AUDIT):
        if key == audit_head_key():
            continue
        segment = (source.read(key) or b"").splitlines()
        entries, _ = read_lines(segment[:1])
        if entries and key != audit_segment_key(entries[0].n):
            faults.append(Fault(entries[0].n, "reordered", f"it begins {key}"))
        lines += segment
    return lines, faults


def _checkpoint(
    source: Source, records: Sequence[Record], hub: str, count: int
) -> tuple[list[Witness], list[Fault]]:
    record = next((r for r in records if r.key == audit_head_key()), None)
    wrong = "there is none" if record is None else record.wrong
    if record is not None and record.seal is not None:
        if record.seal.key == hub:
            head = parse_record(record.seal.record, Head, audit_head_key(), OF_HUB)
            return [Witness(head.count - 1, head.sha256, "the hub's checkpoint")], []
        wrong = f"it is sealed by {fingerprint(record.seal.key)}"
    return [], [Fault(max(0, count - 1), "changed", f"no checkpoint of the hub covers it: {wrong}")]


def _objects(
    source: Source, records: Sequence[Record], entries: Sequence[Entry], notes: list[str]
) -> tuple[int, list[Fault]]:
    """How many objects are what the log last told of them, and those that are not.

    What its author may write again is no fault of the log: a site its answers, the hub its list of the invited.
    """
    last = {e.object: e for e in entries if e.object and e.sha256}
    sealed = {r.key for r in records if r.seal is not None and (r.author != HUB or r.key in _CHANGING)}
    agreed, faults = 0, []
    for key, entry in last.items():
        data = source.read(key)
        if data is None:
            continue
        if sha256_bytes(data) == entry.sha256:
            agreed += 1
        elif key in sealed:
            notes.append(f"{key} was written again by its author since entry {entry.n}")
        else:
            faults.append(Fault(entry.n, "contradicted", f"{key} is not the object that it tells of"))
    return agreed, faults
