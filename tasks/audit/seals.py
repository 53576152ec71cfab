"""The seals beside a log: who vouches for which record, and what each of them had seen of the log when it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from model.errors import SignatureError
from tasks.audit.chain import Fault, Witness
from tasks.audit.entry import Entry
from tasks.audit.source import Source
from tasks.keys import fingerprint
from tasks.ledger import AUDIT, audit_head_key
from tasks.seal import NOTHING_SEEN, Sealed, split_seal
from tasks.trust import HUB, author_of


@dataclass(frozen=True)
class Record:
    """A record as it lies in the ledger.

    Attributes:
        key: that it lies under.
        seal: None where it has none, or not one of its bytes and place.
        wrong: why not.
    """

    key: str
    seal: Sealed | None
    wrong: str = ""

    @property
    def author(self) -> str:
        """Whose word counts there."""
        return author_of(self.key)


def read_records(source: Source) -> list[Record]:
    """All records of the ledger, those of the sites first: they have seen no later log than is read afterwards."""
    return [
        _record(source, key)
        for prefix in ("sites/", "global/")
        for key in source.keys(prefix)
        if _is_one(key)
    ]


def witnesses(records: Sequence[Record], keys: Mapping[str, set[str]]) -> Iterator[Witness]:
    """What the authors had seen of the log, each in the name of a key that is theirs.

    Args:
        records: of the ledger.
        keys: author → public keys.

    Yields:
        What one record proves to have been seen.
    """
    for record in records:
        seal = record.seal
        if seal is not None and seal.key in keys.get(record.author, ()) and seal.position != NOTHING_SEEN:
            count, _, sha256 = seal.position.partition(":")
            yield Witness(int(count) - 1, sha256, f"{record.author}, which sealed {record.key},")


def author_keys(entries: Sequence[Entry], hub: str) -> dict[str, set[str]]:
    """Author → the public keys it has or had, as the log tells them; the hub's from elsewhere."""
    keys: dict[str, set[str]] = {HUB: {hub}}
    for entry in entries:
        if entry.kind == "key" and entry.site:
            keys.setdefault(entry.site, set()).add(str(entry.facts["sign"]))
    return keys


def seal_faults(
    records: Sequence[Record], entries: Sequence[Entry], keys: Mapping[str, set[str]]
) -> tuple[int, list[Fault]]:
    """Records that the log tells of and that are not their author's word.

    Args:
        records: of the ledger.
        entries: of the log.
        keys: author → public keys.

    Returns:
        How many are, and the others by entry.
    """
    told = {entry.object: entry for entry in entries if entry.object}
    good, faults = 0, []
    for record in records:
        entry, seal = told.get(record.key), record.seal
        if seal is not None and seal.key in keys.get(record.author, ()):
            good += 1
        elif entry is not None:
            known = f"sealed by {fingerprint(seal.key)}, no key of {record.author}" if seal else record.wrong
            faults.append(Fault(entry.n, "contradicted", f"{record.key}: {known}"))
    return good, faults


def _is_one(key: str) -> bool:
    return key.endswith(".json") and (not key.startswith(AUDIT) or key == audit_head_key())


def _record(source: Source, key: str) -> Record:
    try:
        seal = split_seal(source.read(key) or b"", key)
        seal.check(key)
    except SignatureError as error:
        return Record(key, None, error.what)
    return Record(key, seal)
