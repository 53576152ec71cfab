"""One federated round as the hub runs it: call the hospitals, wait for what the ledger shows, merge, close."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from flows import phases
from flows.calls import call_sites, end_calls, keep_to_round
from flows.compute import one_thread_each
from flows.only_one import only_one
from flows.round import coloured
from flows.runs import run_role
from flows.status import publish_status
from model.errors import RoundError
from tasks.audit.hub_facts import started
from tasks.audit.record import append_missing
from tasks.awaiting import Outlook, await_sites, is_silent
from tasks.close import close_failed
from tasks.durations import SitePhase
from tasks.homes import this_home
from tasks.hub_lease import hold_lease
from tasks.next_round import end_round, is_over, next_round, refuse_past
from tasks.pretrain import need_base
from tasks.privacy import keep_errors
from tasks.records import Close
from tasks.site_round import next_duty
from tasks.workspace import Workspace

SHOW_S = 30.0
"""While the hub waits, the artifact of the round's status is renewed this often."""

Round = Annotated[
    int | None,
    Field(ge=1, le=9999, description="Leave empty for the next round, or the open one that has not ended."),
]


@flow(name="federated-round", flow_run_name="federated round")
def federated_round(round: Round = None) -> State[Any]:
    """Run or continue one round with all hospitals that have joined.

    What the ledger holds already is not done again, so Retry and a new run both continue.

    Args:
        round: number, 1 to 9999; leave it empty (None) for the open round that has not ended, or else the next one.

    Returns:
        The flow's final state; its name says so when the round was rejected, degraded or stepped back.
    """
    one_thread_each()
    ws, _ = this_home()
    keep_errors(ws.root)
    number = round or next_round(ws)
    keep_to_round(flow_run.id, number)
    if is_over(ws, number):
        return Completed(name="Nothing to do", message=f"round {number} is over")
    with only_one(ws.root), hold_lease(ws, number):
        refuse_past(ws, number)
        append_missing(ws, number, [started(number, *run_role())])
        phases.gather(ws, need_base(ws.base_home))
        plan = phases.open_(ws, number)
        sites = [member.site for member in plan.members]
        attempt = f"{flow_run.id}-{flow_run.run_count}"
        _call(number, [site for site in sites if next_duty(ws, number, site) != "over"], attempt)
        called = ws.store.now()
        try:
            close = _close(ws, number, sites, plan.params.merge.mode, called)
        except RoundError as error:
            close_failed(ws, number, error)
            raise
        finally:
            publish_status(ws, number)
        _wait(ws, number, "adapt", close.participants, called)
        phases.version(ws, number)
        phases.report(ws, number)
        end_round(ws, number)
        standing = publish_status(ws, number)
        end_calls(number, [site.site for site in standing.sites if is_silent(site.contact_s)])
    return coloured(close)


def _close(ws: Workspace, number: int, sites: Collection[str], mode: str, called: datetime) -> Close:
    _wait(ws, number, "train", sites, called)
    candidates = phases.admit(ws, number)
    out = {*candidates.missing, *(refusal.site for refusal in candidates.quarantined)}
    present = [site for site in sites if site not in out]
    if mode != "average":
        _wait(ws, number, "rate", present, called)
    phases.merge(ws, number)
    _wait(ws, number, "judge", present, called)
    return phases.close(ws, number)


@task(
    name="call",
    task_run_name="call the sites",
    retries=phases.RETRIES,
    retry_delay_seconds=phases.RETRY_DELAYS_S,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _call(number: int, sites: list[str], attempt: str) -> None:
    unreached = call_sites(number, sites, attempt)
    if unreached:
        get_run_logger().info("these come by themselves: %s", ", ".join(unreached))


@task(name="wait", task_run_name="wait for sites to {phase}", cache_policy=NO_CACHE, persist_result=False)
def _wait(ws: Workspace, number: int, phase: SitePhase, sites: Collection[str], called: datetime) -> Outlook:
    shown = -SHOW_S

    def sleep(seconds: float) -> None:
        nonlocal shown
        if time.monotonic() - shown >= SHOW_S:
            publish_status(ws, number)
            shown = time.monotonic()
        time.sleep(seconds)

    outlook = await_sites(ws, number, phase, sites, sleep, called)
    said = [f"{len(outlook.answered)} of {len(sites)} sites"]
    said += [f"no sign of life: {', '.join(outlook.dead)}"] * bool(outlook.dead)
    said += [f"too late: {', '.join(outlook.late)}"] * bool(outlook.late)
    get_run_logger().info("%s: %s", phase, "; ".join(said))
    return outlook
