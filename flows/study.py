"""The study as a flow: every missing cell on all cores; finished ones are found."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.progress import advance
from flows.runs import all_cores, run_name
from tasks.settings import Params, load_params
from tasks.study.cell import Cell
from tasks.study.plan import choice_cells, planned_cells, study_params
from tasks.study.run import run_cell


@flow(name="study", flow_run_name=run_name, task_runner=all_cores(), validate_parameters=False)
def study(root: str, params_file: str = "params.yaml") -> None:
    """Train every cell that the settings ask for.

    Args:
        root: folder of the study, its base trained.
        params_file: the settings.
    """
    params = study_params(load_params(Path(params_file)))
    cells = [*choice_cells(params), *planned_cells(params)]
    runs = [_cell.with_options(task_run_name=cell.name).submit(root, cell, params) for cell in cells]
    for run in runs:
        run.result()


@task(name="cell", cache_policy=NO_CACHE, persist_result=False)
def _cell(root: str, cell: Cell, params: Params) -> None:
    run_cell(Path(root), Path(params.study.source), cell, params)
    advance(cell.name)
