"""What a killed worker leaves behind is ended with its federation, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from infra.workers import end_strayed_runs


def start_run(home: Path) -> subprocess.Popen[bytes]:
    """A process that looks like a flow run of a machine."""
    command = [sys.executable, "-c", "print(flush=True); input()", "prefect.engine"]
    run = subprocess.Popen(
        command,
        env={**os.environ, "CARDIOFED_HOME": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert run.stdout is not None
    run.stdout.readline()
    return run


def test_a_run_whose_worker_was_killed_is_ended_and_another_federations_is_not(tmp_path: Path) -> None:
    own, other = start_run(tmp_path / "live" / "hub"), start_run(tmp_path / "live-2" / "hub")
    with own, other:
        assert end_strayed_runs(tmp_path / "live") == 1
        assert own.poll() is not None and other.poll() is None
        other.kill()
    assert end_strayed_runs(tmp_path / "live") == 0
