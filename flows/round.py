"""One federated round: the whole protocol on one screen. Hub and sites meet only in the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prefect import Task, flow
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.states import Completed

from flows import phases
from flows.runs import all_cores, run_role
from model.errors import RoundError
from tasks.audit.hub_facts import started
from tasks.audit.record import append_missing
from tasks.close import close_failed
from tasks.records import Close, Plan
from tasks.workspace import Workspace, open_workspace


@flow(
    name="federated-round",
    flow_run_name="round {number}",
    task_runner=all_cores(),
    validate_parameters=False,
)
def federated_round(root: str, number: int) -> State[Any]:
    """Run or continue one round; phases that the ledger already holds are not repeated.

    Args:
        root: folder of the run.
        number: of the round, from 1.

    Returns:
        The flow's final state; its name says so when the round was rejected, degraded or stepped back.
    """
    ws = open_workspace(root)
    append_missing(ws, number, [started(number, *run_role())])
    plan = phases.open_(ws, number)
    sites = [member.site for member in plan.members]

    each(phases.train, ws, plan, sites)
    candidates = phases.admit(ws, number)
    out = {*candidates.missing, *(refusal.site for refusal in candidates.quarantined)}
    present = [site for site in sites if site not in out]
    if plan.params.merge.mode != "average":
        each(phases.rate, ws, plan, present)
    try:
        phases.merge(ws, number)
        each(phases.judge, ws, plan, present)
        close = phases.close(ws, number)
    except RoundError as error:
        close_failed(ws, number, error)
        raise

    each(phases.adapt, ws, plan, present)
    phases.version(ws, number)
    phases.report(ws, number)
    return coloured(close)


def each(phase: Task[..., Any], ws: Workspace, plan: Plan, sites: Iterable[str]) -> None:
    """Run a phase at every site; who fails or is too slow shows in the UI and is found missing in the ledger."""
    answers = [phase.submit(ws, plan.round, site) for site in sites]
    wait(answers, timeout=plan.params.federation.deadline_s)


def coloured(close: Close) -> State[Any]:
    """The flow's final state: a round without everybody never looks like a plain success."""
    said = f"without {', '.join(close.missing)}; {close.reason}" if close.missing else close.reason
    if close.outcome == "rejected":
        return Completed(name="Rejected", message=said)
    if close.degraded:
        return Completed(name="Degraded", message=said)
    if close.outcome == "stepped_back":
        return Completed(name="Stepped back", message=close.reason)
    return Completed(message=close.reason)
