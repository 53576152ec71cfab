"""Visits of a hospital that nobody calls: it looks into the ledger by itself, and says how often it does so."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from tasks.answers import find_answer
from tasks.contact import age_s
from tasks.ledger import put_record, visit_key
from tasks.records import Record
from tasks.store import Store
from tasks.workspace import Workspace

OVERDUE_S = 90.0
"""Beyond two of its intervals, for a clock that ticks a little later and a slow start."""


class Visit(Record):
    """A hospital was here, whether there was a round or not."""

    site: str
    every_s: float = Field(ge=0, description="until it comes again")


def leave_visit(ws: Workspace, site: str, every_s: float) -> None:
    """Let the hub know that a site comes by itself, so that rounds wait for its next visit.

    Args:
        ws: the site's workspace.
        site: that comes.
        every_s: until it comes again.

    Raises:
        StoreError: the store does not take it.
    """
    put_record(ws.store, visit_key(site), Visit(site=site, every_s=every_s))


def absence_s(store: Store, site: str, now: datetime) -> float:
    """How long a site that comes by itself may stay away without being dead.

    Args:
        store: the ledger's.
        site: whose visits.
        now: by the store's clock.

    Returns:
        Two of its intervals, seconds, since it may miss one; 0 for a site that is called, and for one that stayed away
        for longer than that.
    """
    seen = [info.modified for info in store.list(visit_key(site))]
    visit = find_answer(store, visit_key(site), Visit) if seen else None
    if visit is None:
        return 0.0
    absence = 2 * visit.every_s
    return absence if age_s(seen[0], now) <= absence + OVERDUE_S else 0.0
