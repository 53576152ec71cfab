"""A hospital's eye on the audit log: it has only ever grown since it was last seen, or the hospital does not go on."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from model.errors import AuditError, ObjectMissingError
from tasks.audit.entry import Head, line_sha256, read_line
from tasks.files import json_bytes, write_atomic
from tasks.ledger import audit_head_key, audit_segment_key, find_record
from tasks.store import Store
from tasks.workspace import Workspace

R = TypeVar("R")

SEEN_FILE = "audit-head.json"
"""In a hospital's folder."""
_MEND = "ask the hub and the other hospitals; remove the file only when somebody has explained it"


def watch(store: Store, home: Path) -> Head | None:
    """Follow the log from where it was last seen to its present end.

    Only what has come since is read, and whatever this process seals from now on says how far it has seen. At first
    sight the log is believed as it stands; the audit checks what is before.

    Args:
        store: the ledger's store.
        home: the hospital's folder, where it keeps what it has seen.

    Returns:
        How far it goes; None before its first entry.

    Raises:
        AuditError: the hub, or somebody in its place, has changed what the hospital had seen; names the entry.
        SignatureError: the checkpoint is not sealed by the hub.
        StoreError: the store does not answer.
    """
    seen, head = _read(home / SEEN_FILE), find_record(store, audit_head_key(), Head)
    if head is None:
        if seen is not None:
            raise AuditError(f"entry {seen.count - 1} is missing: there is no log", audit_head_key(), _MEND)
        return None
    if seen != head:
        if seen is not None:
            _follow(store, seen, head)
        write_atomic(home / SEEN_FILE, json_bytes(head.model_dump(mode="json")))
    store.seals.saw(head.count, head.sha256)
    return head


def watched(verb: Callable[[Workspace, int, str], R]) -> Callable[[Workspace, int, str], R]:
    """A verb of a hospital, which looks at the log before it does anything.

    Args:
        verb: of workspace, round and site.

    Returns:
        The verb.
    """

    @wraps(verb)
    def run(ws: Workspace, number: int, site: str) -> R:
        watch(ws.store, ws.site_home(site))
        return verb(ws, number, site)

    return run


def _follow(store: Store, seen: Head, now: Head) -> None:
    n, sha256 = seen.count, seen.sha256
    if now.count < n:
        raise AuditError(
            f"entry {now.count} is missing: {n} entries were seen before", audit_head_key(), _MEND
        )
    while n < now.count:
        key = audit_segment_key(n)
        try:
            segment = store.get(key)
        except ObjectMissingError as error:
            raise AuditError(f"entry {n} is missing", key, _MEND) from error
        for line in segment.splitlines():
            entry = read_line(line, key)
            if (entry.n, entry.previous) != (n, sha256):
                what = f"entry {n - 1} was changed: entry {n} does not follow from what was seen"
                raise AuditError(what, key, _MEND)
            n, sha256 = n + 1, line_sha256(line)
    if sha256 != now.sha256:
        what = f"entry {n - 1} is not the one that was seen, or not the one that the hub signed"
        raise AuditError(what, audit_head_key(), _MEND)


def _read(path: Path) -> Head | None:
    if not path.exists():
        return None
    try:
        return Head.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise AuditError("no usable note of what was seen", str(path), _MEND) from error
