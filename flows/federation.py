"""The main job in two flows: the rounds, and the evaluation of what they led to."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows import phases
from flows.round import federated_round
from flows.runs import all_cores, run_name
from tasks.enrol import local_federation
from tasks.final import gather_tables
from tasks.history import read_history, round_status
from tasks.pretrain import need_base
from tasks.results import result_markdown
from tasks.workspace import open_workspace


@flow(name="federation", flow_run_name=run_name, validate_parameters=False)
def federate(root: str) -> State[Any]:
    """Found the federation on the base, then round after round.

    Args:
        root: folder of a run whose cohort and base are ready.

    Returns:
        The flow's final state; its name says so when a round did not end as planned.
    """
    ws = open_workspace(root)
    phases.found(ws, need_base(ws.base_home))
    for number in range(1, ws.params.federation.rounds + 1):
        federated_round(root, number)
    flawed = [entry.number for entry in read_history(ws.rounds) if not round_status(entry).good]
    if flawed:
        return Completed(name="With flaws", message=f"not as planned: rounds {', '.join(map(str, flawed))}")
    return Completed()


@flow(
    name="evaluation",
    flow_run_name=run_name,
    task_runner=all_cores(),
    validate_parameters=False,
)
def evaluate(root: str) -> None:
    """Train what the federation is compared with, then evaluate everything on the test cases, once.

    Args:
        root: folder of a run whose rounds are closed.
    """
    ws = open_workspace(root)
    federation = local_federation(ws, need_base(ws.base_home))
    sites = [member.site for member in federation.members]
    alone = [phases.alone.submit(ws, federation, site) for site in sites]
    for number in range(1, ws.params.federation.rounds + 1):
        full = [phases.full.submit(ws, federation, number, site) for site in sites]
        for trained in full:
            trained.result()
        phases.average(ws, federation, number)
    for trained in alone:
        trained.result()
    tables = [phases.evaluate.submit(ws, federation, site) for site in sites]
    gather_tables(ws, [table.result() for table in tables])
    create_markdown_artifact(result_markdown(ws.root), key="result", description="Test cases, evaluated once")
