"""A log of two rounds in a real store, and ways to spoil a copy of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from federation_files import SITES, found

from tasks.adapt import adapt_site
from tasks.admit import admit_updates
from tasks.audit.entry import GENESIS, Head, line_sha256
from tasks.audit.log import Log, sign
from tasks.audit.record import append_missing, recorded
from tasks.audit.watch import watched
from tasks.close import close_round
from tasks.files import json_bytes
from tasks.identity import read_identity
from tasks.judge import judge_merged
from tasks.ledger import AUDIT, audit_head_key, audit_segment_key
from tasks.merge import merge_updates
from tasks.open import open_round
from tasks.rate import rate_candidates
from tasks.seal import NOTHING_SEEN, seal, split_seal
from tasks.train import train_site
from tasks.trust import HUB, author_of, identity_folder
from tasks.workspace import Workspace


def logged_round(ws: Workspace, number: int) -> None:
    """All phases of a round, the log continued after each of the hub's, as the flows do."""
    recorded(open_round)(ws, number)
    for site in SITES:
        watched(train_site)(ws, number, site)
    recorded(admit_updates)(ws, number)
    for site in SITES:
        watched(rate_candidates)(ws, number, site)
    recorded(merge_updates)(ws, number)
    for site in SITES:
        watched(judge_merged)(ws, number, site)
    recorded(close_round)(ws, number)
    for site in SITES:
        watched(adapt_site)(ws, number, site)
    append_missing(ws, number, thorough=True)


def logged_rounds(ws: Workspace, rounds: int = 2) -> Workspace:
    found(ws)
    for number in range(1, rounds + 1):
        logged_round(ws, number)
    return ws


def read_log(copy: Path) -> list[bytes]:
    """All lines of a copy of the ledger."""
    segments = sorted((copy / AUDIT).glob("*.jsonl"))
    return [line for path in segments for line in path.read_bytes().splitlines()]


def write_log(copy: Path, lines: list[bytes]) -> None:
    """One segment with these lines in place of all."""
    for path in (copy / AUDIT).glob("*.jsonl"):
        path.unlink()
    (copy / AUDIT / "00000000.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


def chained(entries: list[dict[str, object]]) -> list[bytes]:
    """Lines of these entries, numbered and chained anew, as a hub that lies would do."""
    lines: list[bytes] = []
    for n, entry in enumerate(entries):
        previous = line_sha256(lines[-1]) if lines else GENESIS
        lines.append(json_bytes({**entry, "n": n, "previous": previous}).rstrip(b"\n"))
    return lines


def sign_again(copy: Path, ws: Workspace) -> None:
    """The hub's checkpoint over whatever stands in the copy."""
    lines = read_log(copy)
    head = Head(count=len(lines), sha256=line_sha256(lines[-1]))
    write_record(copy, audit_head_key(), ws, head.model_dump(mode="json"))


def read_record(copy: Path, key: str) -> Any:
    """A record of a copy of the ledger, its seal taken off."""
    return json.loads(split_seal((copy / key).read_bytes(), key).record)


def write_record(copy: Path, key: str, ws: Workspace, tree: object) -> bytes:
    """A record as its author would write and seal it."""
    author = read_identity(identity_folder(ws.root, author_of(key))).key
    data = seal(author, key, NOTHING_SEEN, json_bytes(tree))
    (copy / key).write_bytes(data)
    return data


def hub_public(ws: Workspace) -> str:
    """The hub's public key."""
    return read_identity(identity_folder(ws.root, HUB)).public.sign


def put_log(ws: Workspace, lines: list[bytes], start: int = 0) -> None:
    """What a hub that lies puts into the store: the lines from ``start`` on, an object each, and its word for all."""
    for n, line in enumerate(lines[start:], start):
        ws.store.put(audit_segment_key(n), line + b"\n")
    sign(ws.store, Log(lines))
