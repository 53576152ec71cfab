"""How flow runs appear and run: their name in the UI, and as many tasks at once as there are cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Crashed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.compute import WORKERS

_MANY = 200  # the most a server answers at once


def settle_interrupted() -> None:
    """Call runs crashed that a kill left Running: only this process runs flows on the run's own server."""
    with get_client(sync_client=True) as client:
        running = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING]))
        chosen = FlowRunFilter(state=running)
        newest = FlowRunSort.START_TIME_DESC
        for found in client.read_flow_runs(flow_run_filter=chosen, sort=newest, limit=_MANY):
            said = "interrupted; the same work continues in a new run"
            client.set_flow_run_state(found.id, Crashed(message=said), force=True)


def run_name() -> str:
    """The run's folder name; its path stays on this machine."""
    return Path(str(flow_run.parameters["root"])).name


def run_role() -> tuple[str, str]:
    """What started the present flow run, ``schedule`` or ``hand``, and Prefect's id of it."""
    context = FlowRunContext.get()
    found = context.flow_run if context else None
    return ("schedule" if found and found.auto_scheduled else "hand"), str(found.id if found else "")


def all_cores() -> TaskRunner[PrefectFuture[Any]]:
    """A runner with one thread per core."""
    return cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=WORKERS))
