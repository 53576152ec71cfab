"""Which entries of a log are missing, changed, out of place or added, by what others remember of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from model.errors import AuditError
from tasks.audit.entry import Entry, line_sha256, read_line

Wrong = Literal["missing", "changed", "reordered", "added", "contradicted"]


@dataclass(frozen=True)
class Fault:
    """One entry that cannot be believed.

    Attributes:
        n: its number.
        wrong: what is wrong with it; ``contradicted`` when the entry stands, and what it tells of is something else.
        why: how that is known.
    """

    n: int
    wrong: Wrong
    why: str

    def __str__(self) -> str:
        return f"entry {self.n} is {self.wrong}: {self.why}"


@dataclass(frozen=True)
class Witness:
    """Somebody signed that a log had this entry.

    Attributes:
        n: its number.
        sha256: of its line.
        who: signed.
    """

    n: int
    sha256: str
    who: str


@dataclass(frozen=True)
class _Line:
    place: int
    sha256: str
    entry: Entry


def read_lines(lines: Sequence[bytes]) -> tuple[list[Entry], list[Fault]]:
    """The entries of all lines in the order in which they stand; what is no entry is a fault at its place."""
    entries, faults = [], []
    for place, line in enumerate(lines):
        try:
            entries.append(read_line(line, f"line {place + 1}"))
        except AuditError as error:
            faults.append(Fault(place, "changed", error.what))
    return entries, faults


def find_faults(lines: Sequence[bytes], witnesses: Iterable[Witness]) -> list[Fault]:
    """Follow the chain from what was signed last back to the first entry.

    An entry is the right one when a witness or the right entry after it holds its hash.

    Args:
        lines: as they stand.
        witnesses: at least the hub's checkpoint; with none, every line that fits its place is believed.

    Returns:
        By number of the entry; empty for a whole log.
    """
    _, faults = read_lines(lines)
    at: dict[int, list[_Line]] = {}
    for place, line in enumerate(lines):
        try:
            entry = read_line(line, "")
        except AuditError:
            continue
        at.setdefault(entry.n, []).append(_Line(place, line_sha256(line), entry))
    signed: dict[int, list[Witness]] = {}
    for witness in witnesses:
        signed.setdefault(witness.n, []).append(witness)
    last = max(signed, default=max(at, default=-1))
    faults += [Fault(n, "added", "no checkpoint covers it") for n in at if n > last]
    faults += _follow(at, signed, last)
    faults += _out_of_place({n: here for n, here in at.items() if n <= last})
    first_of: dict[int, Fault] = {}
    for fault in faults:
        first_of.setdefault(fault.n, fault)
    return [first_of[n] for n in sorted(first_of)]


def _follow(
    at: Mapping[int, Sequence[_Line]], signed: Mapping[int, Sequence[Witness]], last: int
) -> list[Fault]:
    faults: list[Fault] = []
    after: Witness | None = None
    for n in range(last, -1, -1):
        promised = [*([after] if after else []), *signed.get(n, ())]
        here = at.get(n, ())
        after = None
        if not here:
            by = f"{promised[0].who} holds its hash" if promised else "there is none of this number"
            faults.append(Fault(n, "missing", by))
            continue
        wanted = {witness.sha256 for witness in promised}
        right = next((line for line in here if line.sha256 in wanted), here[0])
        unmet = next((w for w in promised if w.sha256 != right.sha256), None)
        if unmet is not None:
            faults.append(Fault(n, "changed", f"it is not the one whose hash {unmet.who} holds"))
        elif len(here) > 1:
            faults.append(Fault(n, "added", "there are several of this number"))
        after = Witness(n - 1, right.entry.previous, f"entry {n}")
    return faults


def _out_of_place(at: Mapping[int, Sequence[_Line]]) -> list[Fault]:
    """The first entry in whose place another one stands."""
    standing = [n for _, n in sorted((here[0].place, n) for n, here in at.items())]
    for stands, belongs in zip(standing, sorted(standing), strict=True):
        if stands != belongs:
            return [Fault(belongs, "reordered", f"entry {stands} stands in its place")]
    return []
