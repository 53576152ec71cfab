"""One hub at a time: a lease in the ledger, renewed while the hub works, so that a second run turns itself away."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from model.errors import RoundError, StoreError
from tasks.contact import age_s
from tasks.ledger import find_record, get_record, hub_lease_key, put_record
from tasks.records import Record
from tasks.workspace import Workspace

RENEWAL_S, LEASE_S, LOOK_S = 10.0, 45.0, 2.0


class HubLease(Record):
    """Which process works for the hub."""

    holder: str
    round: int
    over: bool = False


@contextmanager
def hold_lease(ws: Workspace, number: int, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Work as the hub, alone.

    Two that start within the same second could both hold it, since a store may ignore conditions; Prefect's limit of
    one run keeps schedules apart, and the lease what goes around Prefect.

    Args:
        ws: the hub's workspace.
        number: of the round.
        sleep: takes seconds.

    Yields:
        Nothing; the lease is renewed until the block ends. A killed holder's is waited for: it runs out after
        ``LEASE_S`` seconds.

    Raises:
        RoundError: another process works for the hub: it renewed its lease.
        StoreError: the store does not answer.
    """
    holder, over = secrets.token_hex(8), threading.Event()
    _await_end(ws, sleep)
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


def works_on(ws: Workspace, number: int) -> bool | None:
    """Whether a live process works for the hub on a round.

    Args:
        ws: any workspace that may read the ledger.
        number: of the round.

    Returns:
        None where no process ever took the lease.
    """
    found = find_record(ws.store, hub_lease_key(), HubLease)
    if found is None:
        return None
    sign = _last_sign(ws)
    return found.round == number and sign is not None and age_s(sign, ws.store.now()) < LEASE_S


def _await_end(ws: Workspace, sleep: Callable[[float], None]) -> None:
    """Return when no live process holds the lease.

    Args:
        ws: the hub's workspace.
        sleep: waits some seconds.

    Raises:
        RoundError: its holder gave a sign while we looked.
    """
    first = _last_sign(ws)
    while (sign := _last_sign(ws)) is not None:
        if sign != first:
            found = get_record(ws.store, hub_lease_key(), HubLease)
            what = f"another process works for the hub, on round {found.round}"
            raise RoundError(what, hub_lease_key(), "wait for it, or cancel its run")
        if age_s(sign, ws.store.now()) >= LEASE_S:
            return
        sleep(LOOK_S)


def _last_sign(ws: Workspace) -> datetime | None:
    """When the holder of the lease gave its last sign; None when nobody holds it."""
    found = find_record(ws.store, hub_lease_key(), HubLease)
    if found is None or found.over:
        return None
    (info,) = ws.store.list(hub_lease_key())
    return info.modified
