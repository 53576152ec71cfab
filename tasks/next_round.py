"""Which round the hub works on when nobody names one."""

from __future__ import annotations

from model.errors import RoundError
from tasks.ledger import close_key, current_key, find_record
from tasks.records import Close, Current
from tasks.workspace import Workspace


def next_round(ws: Workspace) -> int:
    """The round that was opened last unless it has ended, else the one after it; a failed round has not ended.

    Args:
        ws: the hub's workspace.

    Returns:
        Its number, from 1.

    Raises:
        RoundError: all 9999 are over.
    """
    current = find_record(ws.store, current_key(), Current)
    if current is None:
        return 1
    close = find_record(ws.store, close_key(current.round), Close)
    if close is None or close.outcome == "failed":
        return current.round
    if current.round == 9999:
        raise RoundError("all 9999 rounds are over", current_key(), "start a new federation from this model")
    return current.round + 1
