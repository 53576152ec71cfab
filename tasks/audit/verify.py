"""Verify an audit log against all that lies beside it, without trusting the hub or the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import PackageError, SignatureError
from tasks.audit.chain import Fault, Witness, find_faults, read_lines
from tasks.audit.entry import Entry, Head, head_statement
from tasks.audit.recompute import LackingError, round_faults
from tasks.audit.source import Source, record_in
from tasks.files import sha256_bytes
from tasks.keys import fingerprint, verify
from tasks.ledger import AUDIT, audit_head_key, audit_segment_key
from tasks.limits import OF_HUB, parse_record


@dataclass(frozen=True)
class Findings:
    """What an audit found.

    Attributes:
        entries: in the log.
        objects: of the ledger that are what the log tells of them.
        rounds: weighed again.
        faults: by number of the entry; empty for a log that can be believed.
        notes: what could not be checked, and why.
    """

    entries: int
    objects: int
    rounds: int
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]


def verify_log(source: Source, hub_key: str | None = None) -> Findings:
    """Check chain, numbers, signatures, the objects that entries tell of, and every weight.

    Args:
        source: the ledger, or a copy of it.
        hub_key: the hub's public key, from elsewhere; when left out, the checkpoint's own is believed and named.

    Returns:
        What was found.

    Raises:
        StoreError: the store does not answer.
    """
    lines, faults = _lines(source)
    notes: list[str] = []
    witnesses, spoilt = _checkpoint(source, hub_key, notes, len(lines))
    faults += spoilt + find_faults(lines, witnesses)
    entries, _ = read_lines(lines)
    entries = sorted({e.n: e for e in reversed(entries)}.values(), key=lambda e: e.n)
    agreed, contradicted = _objects(source, entries)
    faults += contradicted
    rounds = 0
    for number in sorted({e.round for e in entries if e.round and e.kind == "unblinded"}):
        try:
            faults += round_faults(source, entries, number)
            rounds += 1
        except LackingError as lacking:
            notes.append(f"round {number} was not weighed again: this copy lacks {lacking}")
    faults.sort(key=lambda fault: fault.n)
    return Findings(len(lines), agreed, rounds, tuple(faults), tuple(notes))


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
    source: Source, hub_key: str | None, notes: list[str], count: int
) -> tuple[list[Witness], list[Fault]]:
    data = source.read(audit_head_key())
    try:
        if data is None:
            raise SignatureError("there is no checkpoint")
        head = parse_record(record_in(data), Head, audit_head_key(), OF_HUB)
        if hub_key is None:
            notes.append(
                f"the hub's key is {fingerprint(head.hub)} by its own word: compare, or give --hub-key"
            )
        verify(hub_key or head.hub, head_statement(head.count, head.sha256), head.signature, audit_head_key())
    except (PackageError, SignatureError) as error:
        return [], [Fault(max(0, count - 1), "changed", f"no checkpoint of the hub covers it: {error.what}")]
    return [Witness(head.count - 1, head.sha256, "the hub's checkpoint")], []


def _objects(source: Source, entries: Sequence[Entry]) -> tuple[int, list[Fault]]:
    """How many objects are what the log last told of them, and those that are not."""
    last = {e.object: e for e in entries if e.object and e.sha256}
    agreed, faults = 0, []
    for key, entry in last.items():
        data = source.read(key)
        if data is None:
            continue
        if sha256_bytes(data) == entry.sha256:
            agreed += 1
        else:
            faults.append(Fault(entry.n, "contradicted", f"{key} is not the object that it tells of"))
    return agreed, faults
