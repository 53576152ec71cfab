"""One hub at a time: a lease in the ledger, renewed while the hub works, so that a second run turns itself away."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from model.errors import RoundError, StoreError
from tasks.contact import age_s
from tasks.ledger import find_record, hub_lease_key, put_record
from tasks.records import Record
from tasks.workspace import Workspace

RENEWAL_S, LEASE_S = 10.0, 45.0


class HubLease(Record):
    """Which process works for the hub."""

    holder: str
    round: int
    over: bool = False


@contextmanager
def hold_lease(ws: Workspace, number: int) -> Iterator[None]:
    """Work as the hub, alone.

    Two that start within the same second could both hold it, since a store may ignore conditions; Prefect's limit of
    one run keeps schedules apart, and the lease what goes around Prefect.

    Args:
        ws: the hub's workspace.
        number: of the round.

    Yields:
        Nothing; the lease is renewed until the block ends. A killed holder's runs out after ``LEASE_S`` seconds.

    Raises:
        RoundError: another process works for the hub.
        StoreError: the store does not answer.
    """
    holder, over = secrets.token_hex(8), threading.Event()
    _refuse_another(ws, holder)
    put_record(ws.store, hub_lease_key(), HubLease(holder=holder, round=number))

    def renew() -> None:
        while not over.wait(RENEWAL_S):
            try:
                put_record(ws.store, hub_lease_key(), HubLease(holder=holder, round=number))
            except StoreError:
                continue

    thread = threading.Thread(target=renew, name="hub lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(StoreError):  # it runs out by itself
            put_record(ws.store, hub_lease_key(), HubLease(holder=holder, round=number, over=True))


def _refuse_another(ws: Workspace, holder: str) -> None:
    found = find_record(ws.store, hub_lease_key(), HubLease)
    if found is None or found.over or found.holder == holder:
        return
    (info,) = ws.store.list(hub_lease_key())
    silence = age_s(info.modified, ws.store.now())
    if silence < LEASE_S:
        what = f"another process works for the hub, on round {found.round}"
        left = LEASE_S - silence
        mend = f"wait for it; if it was killed, its lease runs out in {left:.0f} s, then run again"
        raise RoundError(what, hub_lease_key(), mend)
