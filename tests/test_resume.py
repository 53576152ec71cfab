"""A run that is killed, whenever, goes on under the same name, repeats no finished work, and leaves no server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from federation_files import SITES, found, play_round, tiny_params, use_store, write_hospitals

from infra.process import PID_FILE, recorded
from tasks.records import Close, Step
from tasks.settings import Environment
from tasks.workspace import open_workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

COMMAND = [str(Path(sys.executable).parent / "cardiofed"), "demo", "--run", "killed"]
PATIENCE_S = 300.0
MOMENTS = [
    ("sites/lakeside", "train", 1, 0.0),
    ("hub", "close", 1, 1.5),
    ("sites/st-anna", "rate", 2, 0.05),
    ("sites/hillcrest", "train alone", None, 0.3),
    ("hub", "fedavg", 1, 0.1),
]
"""The run is killed so many seconds after this was done here in this round; 1.5 s fall into DVC's work."""


def done(home: Path) -> Counter[tuple[str, int | None]]:
    """How often each phase of each round was truly executed in a folder."""
    path = home / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return Counter((event["phase"], event.get("round")) for event in events if event["action"] == "done")


def start(project: Path) -> subprocess.Popen[bytes]:
    log = (project / "demo.log").open("ab")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CARDIOFED_")}
    with log:
        return subprocess.Popen(
            [*COMMAND, "--data", "cine", "--public", "cine"],
            cwd=project,
            env={**inherited, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def kill_when_done(project: Path, folder: str, phase: str, number: int | None, after_s: float) -> None:
    process = start(project)
    deadline = time.monotonic() + PATIENCE_S
    while not done(project / "runs" / "killed" / folder)[phase, number]:
        assert process.poll() is None, (project / "demo.log").read_text()
        assert time.monotonic() < deadline, (project / "demo.log").read_text()
        time.sleep(0.02)
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def processes_of(root: Path) -> list[str]:
    """Command lines of everything that still runs in or on a run's folder, after some seconds to end."""
    deadline = time.monotonic() + 10
    while True:
        found = []
        for process in psutil.process_iter(["cmdline", "cwd", "status"]):
            words = " ".join(process.info["cmdline"] or ())
            here = (process.info["cwd"] or "").startswith(str(root)) or str(root) in words
            if here and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(words)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_a_run_killed_again_and_again_finishes_and_repeats_nothing(
    tmp_path: Path, s3_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_params().model_dump(mode="json")))
    write_hospitals(tmp_path / "cine")
    root = tmp_path / "runs" / "killed"
    for moment in MOMENTS:
        kill_when_done(tmp_path, *moment)
        assert processes_of(root) == []
    last = start(tmp_path)
    assert last.wait(PATIENCE_S) == 0, (tmp_path / "demo.log").read_text()

    assert (root / "report.html").exists()
    assert (root / "metrics.json").exists()
    assert processes_of(root) == []
    assert [recorded(root / name / PID_FILE) for name in ("store", "prefect")] == [None, None]
    of_rounds = {
        (phase, number) for phase in ("train", "rate", "judge", "adapt", "fedavg") for number in (1, 2)
    }
    for site in SITES:
        counts = done(root / "sites" / site)
        assert max(counts.values()) == 1, counts
        assert set(counts) <= of_rounds | {("train alone", None), ("evaluate", None)}
    hub = done(root / "hub")
    assert [hub[phase, number] for phase in ("open", "admit", "merge", "close") for number in (1, 2)] == [
        1
    ] * 8

    closed = Close.model_validate_json((root / "federation/rounds/0002/close.json").read_bytes())
    assert not closed.degraded
    assert closed.steps == steps_of_an_uninterrupted_run(root, s3_environment, monkeypatch)


def steps_of_an_uninterrupted_run(
    root: Path, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> tuple[Step, ...]:
    """The same cohort, base and settings, played through at once."""
    whole = root.with_name("whole")
    for name in ("cohort", "base"):
        shutil.copytree(root / name, whole / name)
    shutil.copyfile(root / "params.json", whole / "params.json")
    torch.set_num_threads(1)
    use_store(monkeypatch, env)
    ws = found(open_workspace(whole))
    return [play_round(ws, number) for number in (1, 2)][-1].steps
