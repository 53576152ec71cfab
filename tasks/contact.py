"""Signs of life: what a site is doing in a round, renewed while it works, so that nobody waits for the dead.

A sign's age is told by the store's clock alone; the clocks of hub and sites play no part.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Literal

from pydantic import Field

from model.errors import StoreError
from tasks.answers import find_answer
from tasks.ledger import contact_key, put_record
from tasks.records import Record
from tasks.workspace import Workspace

Phase = Literal["train", "rate", "judge", "adapt", "wait", "away", "failed"]
"""``away``: the site ended its work in good order."""

RENEWAL_S = 20.0


class Contact(Record):
    """What one site does in one round."""

    round: int
    site: str
    phase: Phase
    every_s: float = Field(ge=0, description="the site looks into the ledger this often; 0 while it works")
    trainings: int = Field(ge=0, description="how often it trained in this round")
    sent_bytes: int = Field(ge=0, description="over its link in this round")
    received_bytes: int = Field(ge=0)
    started: datetime | None = Field(None, description="its first sign in this round, by the store's clock")
    trained: datetime | None = Field(None, description="the end of its last training, by the store's clock")


class Line:
    """One site's line to the hub during a round; safe to use from two threads.

    Args:
        ws: the site's workspace.
        number: of the round.
        site: whose line.
        every_s: how often the site comes when nobody calls it.
    """

    def __init__(self, ws: Workspace, number: int, site: str, every_s: float) -> None:
        self._ws, self._key, self._lock = ws, contact_key(site, number), threading.Lock()
        before = find_answer(ws.store, self._key, Contact)
        self._contact = before or Contact(
            round=number, site=site, phase="wait", every_s=0, trainings=0, sent_bytes=0, received_bytes=0
        )
        self._every_s = every_s
        self._earlier = (self._contact.sent_bytes, self._contact.received_bytes)
        self._start = (ws.store.bytes_sent, ws.store.bytes_received)

    def say(self, phase: Phase, trainings: int = 0) -> None:
        """Tell what the site does from now on.

        Args:
            phase: what it does.
            trainings: further trainings that ended.
        """
        with self._lock:
            self._contact = self._contact.model_copy(
                update={
                    "phase": phase,
                    "every_s": self._every_s if phase in ("away", "failed") else 0.0,
                    "trainings": self._contact.trainings + trainings,
                    "started": self._contact.started or self._ws.store.now(),
                    "trained": self._ws.store.now() if trainings else self._contact.trained,
                }
            )
            self._put()

    def renew(self) -> None:
        """Say the same again; a store that does not answer hears it the next time."""
        with self._lock:
            try:
                self._put()
            except StoreError:
                return

    def _put(self) -> None:
        store = self._ws.store
        sent, received = (store.bytes_sent - self._start[0], store.bytes_received - self._start[1])
        moved = {"sent_bytes": self._earlier[0] + sent, "received_bytes": self._earlier[1] + received}
        self._contact = self._contact.model_copy(update=moved)
        put_record(store, self._key, self._contact)


@contextmanager
def keep_contact(ws: Workspace, number: int, site: str, every_s: float = 0.0) -> Iterator[Line]:
    """Give signs of life while the block runs, and a last one at its end, however it ends.

    Args:
        ws: the site's workspace.
        number: of the round.
        site: whose signs.
        every_s: how often the site comes by itself; 0 when the hub calls it.

    Yields:
        The line, to say what the site does.

    Raises:
        StoreError: the store does not take the first or a later word.
    """
    line, over = Line(ws, number, site, every_s), threading.Event()

    def renew() -> None:
        while not over.wait(RENEWAL_S):
            line.renew()

    thread = threading.Thread(target=renew, name="contact", daemon=True)
    thread.start()
    ended: Phase = "failed"
    try:
        yield line
        ended = "away"
    finally:
        over.set()
        thread.join()
        try:
            line.say(ended)
        except StoreError:
            if ended == "away":
                raise


def age_s(modified: datetime, now: datetime) -> float:
    """Seconds between a sign and the store's present; never below 0."""
    return max(0.0, (now - modified).total_seconds())
