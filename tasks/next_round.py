"""Which round the hub works on when nobody names one, and when it is done with it."""

from __future__ import annotations

from model.errors import RoundError
from tasks.ledger import close_key, current_key, find_record, over_key, plan_key, put_record
from tasks.records import Close, Current, Record
from tasks.workspace import Workspace


class Over(Record):
    """The hub has closed, versioned and reported a round."""

    round: int


def next_round(ws: Workspace) -> int:
    """The round that was opened last unless the hub is done with it, else the one after it.

    So a failed round is tried again, and one that closed but was not versioned is finished first.

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
    if not is_over(ws, current.round):
        return current.round
    if current.round == 9999:
        raise RoundError("all 9999 rounds are over", current_key(), "start a new federation from this model")
    return current.round + 1


def rounds_at_hand(ws: Workspace) -> tuple[int, ...]:
    """Where something may have to be retried.

    Args:
        ws: the hub's workspace.

    Returns:
        The round that is due, which its hub may have failed to open; and the one opened last, if it is another: a site
        may have failed after its end.
    """
    due, current = next_round(ws), find_record(ws.store, current_key(), Current)
    return (due,) if current is None or current.round == due else (due, current.round)


def refuse_past(ws: Workspace, number: int) -> None:
    """Keep a hub away from a round that others have left behind.

    Args:
        ws: the hub's workspace.
        number: of the round that shall go on.

    Raises:
        RoundError: a later round has been opened.
    """
    current = find_record(ws.store, current_key(), Current)
    if current is not None and number < current.round:
        what = f"round {number} cannot go on: round {current.round} has been opened since"
        raise RoundError(what, plan_key(number), f"run round {current.round}")


def end_round(ws: Workspace, number: int) -> None:
    """Write down that the hub is done with a round; one that failed stays open.

    Args:
        ws: the hub's workspace.
        number: of a round whose results are versioned and reported.
    """
    put_record(ws.store, over_key(number), Over(round=number))


def is_over(ws: Workspace, number: int) -> bool:
    """Whether the hub is done with a round."""
    close = find_record(ws.store, close_key(number), Close)
    done = find_record(ws.store, over_key(number), Over) is not None
    return done and close is not None and close.outcome != "failed"
