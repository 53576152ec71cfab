"""Open a round: write down, once, who is invited, from which model, under which settings."""

from __future__ import annotations

from datetime import UTC, datetime

from model.errors import RoundError
from tasks.enrol import refuse_foreign
from tasks.events import log_event
from tasks.ledger import FEDERATION, close_key, current_key, find_record, get_record, plan_key, put_record
from tasks.records import Close, Current, FederationRecord, Plan
from tasks.step_keys import deliver_step_keys
from tasks.trust import HUB
from tasks.workspace import Workspace


def open_round(ws: Workspace, number: int) -> Plan:
    """Open a round, unless it is open.

    Args:
        ws: the run; its settings become the plan's.
        number: of the round, from 1.

    Returns:
        The round's plan; written on the first call, read on every later one.

    Raises:
        RoundError: the round before has not ended, or the store holds another federation's round.
        ObjectMissingError: there is no federation yet.
    """
    federation = get_record(ws.store, FEDERATION, FederationRecord)
    found = find_record(ws.store, plan_key(number), Plan)
    if found is not None:
        refuse_foreign(found, federation.base, ws.params)
        _point_at(ws, number)
        log_event(ws.hub_home, "open", number, "reused")
        return found
    previous = _previous_close(ws, number)
    if ws.params.privacy.encrypt:
        _deliver_keys(ws, federation)
    plan = Plan(
        round=number,
        base=federation.base,
        members=federation.members,
        steps=previous.steps if previous else (),
        opened=datetime.now(UTC),
        params=ws.params,
    )
    put_record(ws.store, plan_key(number), plan)
    _point_at(ws, number)
    log_event(ws.hub_home, "open", number, "done")
    return plan


def _deliver_keys(ws: Workspace, federation: FederationRecord) -> None:
    """Let every member read the steps that were published and those to come."""
    seals = ws.store.seals
    members = {member.site: seals.public_key(member.site) for member in federation.members}
    deliver_step_keys(ws.store, seals.private_key(HUB), members)


def _point_at(ws: Workspace, number: int) -> None:
    """Tell those who may not list that this round is the last one; running an earlier one again takes nothing back."""
    current = find_record(ws.store, current_key(), Current)
    if current is None or current.round <= number:
        put_record(ws.store, current_key(), Current(round=number))


def _previous_close(ws: Workspace, number: int) -> Close | None:
    if number == 1:
        return None
    close = find_record(ws.store, close_key(number - 1), Close)
    if close is None:
        raise RoundError(
            f"round {number} cannot open: round {number - 1} has not ended",
            close_key(number - 1),
            f"run round {number - 1} again; it continues where it stopped",
        )
    return close
