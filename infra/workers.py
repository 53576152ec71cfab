"""A Prefect worker per machine, as a process of its own, in the machine's own folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil

from infra.prefect_server import prefect_environment
from infra.process import PID_FILE, Child, child_environment, end_family, launch, recorded

QUERY_S = 3
PASSPHRASE = "CARDIOFED_KEY_PASSPHRASE"
"""What opens the machine's signing key, where it is locked."""


def worker_environment(folder: Path, api_url: str) -> dict[str, str]:
    """Variables of a worker: where Prefect is, and a home of its own for what Prefect writes.

    Args:
        folder: the machine's.
        api_url: of the Prefect server.

    Returns:
        Variables to add to the process's own.
    """
    own = folder.absolute() / "worker"
    return {
        **prefect_environment(api_url, own),
        "PREFECT_WORKER_QUERY_SECONDS": str(QUERY_S),
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "INFO",  # what each phase came to
    }


def become_worker(folder: Path, pool: str, api_url: str) -> None:
    """Turn this process into the worker of a pool; does not return.

    Args:
        folder: the machine's.
        pool: its work pool.
        api_url: of the Prefect server.
    """
    prefect = str(Path(sys.executable).parent / "prefect")
    command = [
        sys.executable,
        prefect,
        "worker",
        "start",
        "--pool",
        pool,
        "--type",
        "process",
        "--name",
        pool,
    ]
    (folder / "worker").mkdir(parents=True, exist_ok=True)
    os.chdir(folder / "worker")
    os.execve(command[0], command, {**os.environ, **worker_environment(folder, api_url)})


def start_worker(folder: Path, role: str) -> Child:
    """Have the worker of a machine running, apart from this process.

    Args:
        folder: the machine's; holds its pid file and log.
        role: ``hub`` or ``site``.

    Returns:
        Its process: the one that runs already, or a new one.

    Raises:
        ServerError: it cannot be started.
    """
    home = folder.absolute() / "worker"
    home.mkdir(parents=True, exist_ok=True)
    found = recorded(home / PID_FILE)
    if found is not None:
        return found
    program = str(Path(sys.executable).parent / "cardiofed")
    command = [sys.executable, program, role, "work", "--home", str(folder.absolute())]
    locked = {name: os.environ[name] for name in [PASSPHRASE] if name in os.environ}
    return launch(command, child_environment(home, locked), home, keep=True)


def end_strayed_runs(root: Path) -> int:
    """End the flow runs that a killed worker left behind; the folder they work for tells whose they are.

    Args:
        root: of a federation; runs for machines elsewhere are left alone.

    Returns:
        How many there were.
    """
    strayed = [process.pid for process in psutil.process_iter() if _runs_below(process, root.resolve())]
    for pid in strayed:
        end_family(pid)
    return len(strayed)


def _runs_below(process: psutil.Process, root: Path) -> bool:
    try:
        if "prefect.engine" not in process.cmdline():
            return False
        home = process.environ().get("CARDIOFED_HOME")
    except psutil.Error:  # gone, or another user's
        return False
    return home is not None and Path(home).is_relative_to(root)
