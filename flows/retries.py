"""Start a round by hand, and retry what failed in one: through Prefect, which need not remember the round."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled

from flows.calls import round_tag
from model.errors import ConfigError, ServerError
from tasks.homes import HUB

HUB_FLOW = f"federated-round/{HUB}"
_ENDED_BADLY = [StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]


def start_round(number: int | None) -> tuple[UUID, str]:
    """Have the hub's worker run or continue a round.

    Args:
        number: of the round; None for the one that is due.

    Returns:
        The flow run, and its name.

    Raises:
        ConfigError: the server knows no hub.
        ServerError: Prefect does not answer.
    """
    with prefect_client() as client:
        try:
            deployment = client.read_deployment_by_name(HUB_FLOW)
        except ObjectNotFound as error:
            mend = "run `cardiofed up`, or `cardiofed hub work` on the hub's machine"
            raise ConfigError("Prefect knows no hub", HUB_FLOW, mend) from error
        parameters = {} if number is None else {"round": number}
        run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
        return run.id, run.name


def retry_round(number: int) -> tuple[str, ...]:
    """Retry the runs of a round that ended badly, the hub's and the hospitals'; each does only what is missing.

    Args:
        number: of the round.

    Returns:
        Names of the runs that were retried: of each machine the last one; none where Prefect has lost them.

    Raises:
        ServerError: Prefect does not answer.
    """
    with prefect_client() as client:
        latest: dict[str, FlowRun] = {}
        for run in client.read_flow_runs(flow_run_filter=_runs_of(number), sort=FlowRunSort.START_TIME_ASC):
            latest[run.name] = run
        bad = [run for run in latest.values() if run.state is not None and run.state.type in _ENDED_BADLY]
        for run in bad:
            client.set_flow_run_state(
                run.id, Scheduled(message="retried by `cardiofed round retry`"), force=True
            )
        return tuple(sorted(run.name for run in bad))


def _runs_of(number: int) -> FlowRunFilter:
    begun = FlowRunFilterStateType(any_=[*_ENDED_BADLY, StateType.RUNNING, StateType.COMPLETED])
    return FlowRunFilter(
        tags=FlowRunFilterTags(all_=[round_tag(number)]), state=FlowRunFilterState(type=begun)
    )


@contextmanager
def prefect_client() -> Iterator[SyncPrefectClient]:
    """A client of the Prefect server; :class:`~model.errors.ServerError` where none answers."""
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPError as error:
        mend = "check that it runs; `cardiofed up` starts that of a federation on one machine"
        raise ServerError(
            f"Prefect does not answer ({type(error).__name__})", "PREFECT_API_URL", mend
        ) from error
