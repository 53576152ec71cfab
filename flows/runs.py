"""How flow runs appear and run: their name in the UI, and as many tasks at once as there are cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.compute import WORKERS


def run_name() -> str:
    """The run's folder name; its path stays on this machine."""
    return Path(str(flow_run.parameters["root"])).name


def all_cores() -> TaskRunner[PrefectFuture[Any]]:
    """A runner with one thread per core."""
    return cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=WORKERS))
