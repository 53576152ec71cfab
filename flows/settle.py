"""What a machine that lost its power left behind on the Prefect server: runs that nobody works on any more."""

from __future__ import annotations

from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed

from flows.only_one import only_one
from model.errors import ConfigError, ServerError

_UNDER_WAY = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


def settle_runs(pool: str, root: Path) -> int:
    """Set the runs that the last worker of a machine left under way to Crashed, before a new worker starts.

    Args:
        pool: the machine's work pool, which no other machine serves.
        root: its folder; as long as a run of it still works there, nothing is changed.

    Returns:
        How many there were.

    Raises:
        ServerError: Prefect does not answer.
    """
    try:
        with only_one(root):
            return _crash(pool)
    except ConfigError:
        return 0  # its process outlived the worker, and will report its own end


def _crash(pool: str) -> int:
    left = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNDER_WAY)))
    own = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    said = "the machine stopped while this ran; Retry does what is missing"
    try:
        with get_client(sync_client=True) as client:
            runs = client.read_flow_runs(flow_run_filter=left, work_pool_filter=own)
            for run in runs:
                client.set_flow_run_state(run.id, Crashed(message=said), force=True)
            return len(runs)
    except httpx.HTTPError as error:
        mend = "check that the server runs and that this machine reaches it, then start the worker again"
        raise ServerError(f"Prefect does not answer ({type(error).__name__})", pool, mend) from error
