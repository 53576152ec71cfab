"""The main job on one machine, from data to report; started again under the same name, it continues."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from flows import stages
from flows.compute import WORKERS
from flows.only_one import only_one
from flows.progress import progress_bar
from flows.servers import Servers, servers
from flows.stages import Source
from tasks.enrol import prepared_sites
from tasks.history import read_history, round_status
from tasks.privacy import ERRORS_FILE
from tasks.report import result_table
from tasks.settings import Params
from tasks.summary import read_cases

console = Console()


def run_demo(
    root: Path,
    params: Params,
    source: Source,
    public: Source | None = None,
    keep: bool = False,
    s3_port: int | None = None,
    prefect_port: int | None = None,
) -> Servers:
    """Cohort, base, rounds, evaluation, report.

    Args:
        root: folder of the run; what is done there already is kept.
        params: settings.
        source: the data set and how sites are formed.
        public: a public cohort to pretrain on; None for phantoms.
        keep: leave the servers running.
        s3_port: of the store; None for a free one.
        prefect_port: of Prefect; None for a free one.

    Returns:
        The addresses of the servers.
    """
    with only_one(root):
        stages.claim(root, params, source, public)
        with _step(f"cohort from {source.data}"):
            stages.cohort(root, params, source, replace=False)
        with _step("base, trained on " + ("phantoms" if public is None else str(public.data))):
            stages.pretrain(root, params, public)
        stages.enter(root, params, replace=False)
        with servers(root, s3_port, prefect_port, keep) as up:
            _run_flows(root, params, up)
        stages.report(root)
    return up


def _run_flows(root: Path, params: Params, up: Servers) -> None:
    n, rounds = len(prepared_sites(root / "cohort")), params.federation.rounds
    rating = 0 if params.merge.mode == "average" else n
    console.print(f"Prefect UI  {up.ui_url}\nstore       {up.store_url}", soft_wrap=True)
    with progress_bar("rounds", 1 + rounds * (6 + 3 * n + rating)):
        stages.federate(root)
    with progress_bar("evaluation", rounds * (n + 1) + 2 * n):
        stages.evaluate(root)


def show_result(root: Path, seconds: float) -> None:
    """Print the short table, the minutes and the path of the report."""
    history = read_history(root / "federation" / "rounds")
    console.print(result_table(read_cases(root / "evaluation" / "cases.csv"), history))
    for entry in history:
        status = round_status(entry)
        if not status.good:
            console.print(
                f"round {entry.number} {status.label}: {status.detail}", style="yellow", markup=False
            )
    console.print(f"{seconds / 60:.1f} minutes on {WORKERS} cores")
    if (root / ERRORS_FILE).exists():
        console.print(f"some work failed on the way: {root / ERRORS_FILE}", soft_wrap=True)
    console.print(f"report: {root / 'report.html'}", soft_wrap=True)


@contextmanager
def _step(title: str) -> Iterator[None]:
    """Show that something is going on, and how long it took."""
    started = time.monotonic()
    with console.status(title):
        yield
    console.print(f"{title}: {time.monotonic() - started:.0f} s", soft_wrap=True)
