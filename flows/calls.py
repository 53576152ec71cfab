"""Calls to the hospitals: a run of each one's deployment, and the end of those that nobody answered in time."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

SITE_FLOW = "site-round"
_WAITING = [StateType.SCHEDULED, StateType.PENDING, StateType.PAUSED]


def call_sites(number: int, sites: Iterable[str], attempt: str) -> tuple[str, ...]:
    """Have the sites' workers take part in a round.

    Args:
        number: of the round.
        sites: to call.
        attempt: of the hub; the same attempt calls a site once.

    Returns:
        Those that have no deployment: they come by themselves, or not at all.
    """
    unreached = []
    with get_client(sync_client=True) as client:
        for site in sites:
            try:
                deployment = client.read_deployment_by_name(f"{SITE_FLOW}/{site}")
            except ObjectNotFound:
                unreached.append(site)
                continue
            client.create_flow_run_from_deployment(
                deployment.id,
                name=_call_name(number, site),
                parameters={"round": number},
                tags=[round_tag(number)],
                idempotency_key=f"{attempt}-{number}-{site}",
            )
    return tuple(unreached)


def end_calls(number: int, silent: Iterable[str]) -> None:
    """End the calls of a round that nobody works on: those no worker picked up, and those of silent sites.

    Args:
        number: of the round, which is over.
        silent: sites without a sign of life for longer than a lease.
    """
    over: State[None] = Cancelled(message=f"round {number} is over")
    dead: State[None] = Crashed(message=f"no sign of life from this site, and round {number} is over")
    names = {_call_name(number, site) for site in silent}
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=_calls(number, _WAITING)):
            client.set_flow_run_state(run.id, over, force=True)
        for run in client.read_flow_runs(flow_run_filter=_calls(number, [StateType.RUNNING])):
            if run.name in names:
                client.set_flow_run_state(run.id, dead, force=True)


def _calls(number: int, states: list[StateType]) -> FlowRunFilter:
    return FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)),
        tags=FlowRunFilterTags(all_=[round_tag(number)]),
    )


def keep_to_round(run_id: str, number: int) -> None:
    """Give the hub's own run the number of its round, so that Retry continues this round and no later one.

    Args:
        run_id: of the flow run.
        number: of the round.
    """
    with get_client(sync_client=True) as client:
        client.update_flow_run(
            UUID(run_id),
            name=f"federated round {number}",
            parameters={"round": number},
            tags=[round_tag(number)],
        )


def _call_name(number: int, site: str) -> str:
    return f"round {number} at {site}"


def round_tag(number: int) -> str:
    """What the runs of a round, the hub's and the hospitals', are tagged with."""
    return f"round-{number:04d}"
