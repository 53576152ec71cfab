"""The round as Prefect runs and shows it, on a real Prefect server and a real store."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import prefect.settings
import pytest
from federation_files import SITES, NewRun
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterTaskRunId
from prefect.client.schemas.objects import State, TaskRun
from prefect.client.schemas.sorting import LogSort, TaskRunSort
from prefect.settings import temporary_settings

from flows import phases
from flows.round import each, federated_round
from flows.servers import _send_last_words
from infra.prefect_server import prefect_environment, start_prefect
from infra.process import stop
from model.errors import (
    ConfigError,
    DiskError,
    IntegrityError,
    PassportError,
    RoundError,
    StoreDeniedError,
    StoreUnreachableError,
    UnreadableError,
)
from tasks.audit.show import read_entries
from tasks.audit.source import Bucket
from tasks.audit.verify import verify_log
from tasks.events import count_events
from tasks.ledger import close_key, get_record
from tasks.open import open_round
from tasks.records import Close
from tasks.workspace import Workspace

LATE_S = 30.0
"""Longest that the server may take to show what it was told."""

WORDS = "patient007.nii.gz in /data/hospital"


@dataclass(frozen=True)
class Shown:
    """A flow run as the server shows it."""

    state: State[Any]
    tasks: dict[str, TaskRun]


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect server of this module's own, which all flows here report to."""
    folder = tmp_path_factory.mktemp("prefect")
    started = start_prefect(folder)
    wanted = prefect_environment(started.api_url, folder).items()
    known = {getattr(prefect.settings, name): value for name, value in wanted if name != "DO_NOT_TRACK"}
    with temporary_settings(known):
        yield
        _send_last_words()
    stop(started.pid_file)


def shown(state: State[Any], tasks: int) -> Shown:
    """What the server knows once it knows the end of so many tasks."""
    _send_last_words()
    run_id = state.state_details.flow_run_id
    assert run_id is not None
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    deadline = time.monotonic() + LATE_S
    while True:
        with get_client(sync_client=True) as client:
            runs = client.read_task_runs(flow_run_filter=chosen, sort=TaskRunSort.NAME_ASC, limit=200)
            stored = client.read_flow_run(run_id).state
        if len(runs) == tasks and all(run.state and run.state.is_final() for run in runs):
            assert stored is not None
            return Shown(stored, {run.name: run for run in runs})
        assert time.monotonic() < deadline, [(run.name, run.state) for run in runs]
        time.sleep(0.2)


def log_lines(task: TaskRun, last: str) -> list[str]:
    """All that a task's log says at the server, once it says ``last``."""
    chosen = LogFilter(task_run_id=LogFilterTaskRunId(any_=[task.id]))
    deadline = time.monotonic() + LATE_S
    while True:
        _send_last_words()
        with get_client(sync_client=True) as client:
            logs = client.read_logs(log_filter=chosen, sort=LogSort.TIMESTAMP_ASC, limit=200, offset=0)
        lines = [log.message for log in logs]
        if any(last in line for line in lines):
            return lines
        assert time.monotonic() < deadline, lines
        time.sleep(0.2)


def run_round(ws: Workspace, number: int, tasks: int) -> Shown:
    state: State[Any] = federated_round(str(ws.root), number, return_state=True)
    return shown(state, tasks)


def speaks_of_a_place(text: str) -> bool:
    """Whether a path, a file or a patient of a site is named."""
    return bool(re.search(r"[\w.-]+/[\w.-]+|\.(npz|nii|py|json|csv)\b|\bp\d{3}\b|patient\d", text))


def test_two_rounds_complete_with_a_task_per_site_and_phase(start: NewRun) -> None:
    ws = start()
    for number in (1, 2):
        seen = run_round(ws, number, tasks=6 + 4 * len(SITES))
        assert (seen.state.name, seen.state.message) == (
            "Completed",
            get_record(ws.store, close_key(number), Close).reason,
        )
        hub = {f"{verb} round {number}" for verb in ("open", "admit", "merge", "close", "version", "report")}
        of_sites = {f"{verb} {site}" for verb in ("train", "rate", "judge", "adapt") for site in SITES}
        assert set(seen.tasks) == hub | of_sites
        assert {run.state_name for run in seen.tasks.values()} == {"Completed"}
    audited = verify_log(Bucket(ws.store))
    assert (audited.faults, audited.rounds) == ((), 2)
    started = [entry.facts["by"] for entry in read_entries(Bucket(ws.store)) if entry.kind == "started"]
    assert started == ["hand", "hand"]


def test_a_site_with_a_broken_cache_degrades_the_round_and_tells_nothing_of_its_files(start: NewRun) -> None:
    ws = start()
    (ws.data_home("lakeside") / "train.npz").write_bytes(b"torn")
    seen = run_round(ws, 1, tasks=6 + 4 * len(SITES) - 3)
    assert seen.state.name == "Degraded"
    assert str(seen.state.message).startswith("without lakeside; ")
    failed = seen.tasks["train lakeside"]
    assert (failed.state_name, failed.run_count) == ("Failed", 1)
    assert failed.state is not None
    said = [str(failed.state.message), *log_lines(failed, "Finished in state Failed")]
    assert "UnreadableError" in said[0]
    assert not any(speaks_of_a_place(text) for text in said), said


def test_a_missed_quorum_fails_the_flow_and_after_repair_the_round_completes_without_repeats(
    start: NewRun,
) -> None:
    ws = start("federation.quorum=3")
    cache = ws.data_home("lakeside") / "train.npz"
    whole = cache.read_bytes()
    cache.write_bytes(b"torn")
    seen = run_round(ws, 1, tasks=1 + 3 + 1 + 2 + 1)
    assert seen.state.name == "Failed"
    assert "the quorum is 3; without: lakeside" in str(seen.state.message)
    assert get_record(ws.store, close_key(1), Close).outcome == "failed"
    cache.write_bytes(whole)
    for _ in range(2):
        assert run_round(ws, 1, tasks=6 + 4 * len(SITES)).state.name == "Completed"
        shutil.rmtree(ws.federation)
    for site in SITES:
        assert [count_events(ws.site_home(site), verb) for verb in ("train", "judge", "adapt")] == [1, 1, 1]
    assert [count_events(ws.hub_home, verb) for verb in ("open", "merge")] == [1, 1]


@pytest.mark.parametrize(("verb", "verbs_run"), [("rate", 3 + 1), ("judge", 3 + 1 + 3 + 1)])
def test_a_quorum_missed_by_ratings_or_verdicts_fails_the_flow_and_the_round_completes_later(
    start: NewRun, monkeypatch: pytest.MonkeyPatch, verb: str, verbs_run: int
) -> None:
    ws = start("federation.quorum=3")
    work = getattr(phases, verb).fn

    def failing(ws: Workspace, number: int, site: str) -> Any:
        if site == "lakeside":
            raise UnreadableError("torn")
        return work(ws, number, site)

    with monkeypatch.context() as patch:
        patch.setattr(phases, verb, phases.phase(f"{verb} {{site}}", failing, str))
        seen = run_round(ws, 1, tasks=1 + 3 + 1 + verbs_run)
    assert seen.state.name == "Failed"
    assert "the quorum is 3; without: lakeside" in str(seen.state.message)
    failed = get_record(ws.store, close_key(1), Close)
    assert (failed.outcome, failed.missing) == ("failed", ("lakeside",))
    assert run_round(ws, 1, tasks=6 + 4 * len(SITES)).state.name == "Completed"
    for site in SITES:
        done = [count_events(ws.site_home(site), name) for name in ("train", "rate", "judge", "adapt")]
        assert done == [1, 1, 1, 1]


def test_the_hub_waits_for_no_site_longer_than_the_deadline(start: NewRun) -> None:
    ws = start()
    plan = open_round(ws, 1)
    soon = plan.params.federation.model_copy(update={"deadline_s": 0.2})
    plan = plan.model_copy(update={"params": plan.params.model_copy(update={"federation": soon})})
    goes_on = threading.Event()

    def sleeping(ws: Workspace, number: int, site: str) -> bool:
        return goes_on.wait(LATE_S)

    @flow(name="late")
    def late() -> bool:
        started = time.monotonic()
        each(phases.phase("sleep {site}", sleeping, str), ws, plan, ["lakeside"])
        goes_on.set()
        return time.monotonic() - started < LATE_S / 2

    assert late()


def probe(faults: list[tuple[type[Exception], int]]) -> dict[str, TaskRun]:
    """One phase per fault: it meets that error so many times and then works; retried without waiting."""
    left = [count for _, count in faults]

    def work(number: int) -> int:
        left[number] -= 1
        if left[number] >= 0:
            raise faults[number][0](WORDS, WORDS, WORDS)
        return number

    task = phases.phase("probe {number}", work, str).with_options(retry_delay_seconds=[0.0] * phases.RETRIES)

    @flow(name="probe")
    def probing() -> None:
        for number in range(len(faults)):
            task(number, return_state=True)

    return shown(probing(return_state=True), tasks=len(faults)).tasks


def test_what_may_be_well_a_moment_later_is_tried_again() -> None:
    runs = probe([(StoreUnreachableError, 2), (IntegrityError, 1), (DiskError, 3)])
    assert [(run.state_name, run.run_count) for run in runs.values()] == [
        ("Completed", 3),
        ("Completed", 2),
        ("Completed", 4),
    ]


def test_what_stays_wrong_is_not_tried_again() -> None:
    lasting = (StoreDeniedError, UnreadableError, ConfigError, PassportError, RoundError, ValueError)
    runs = probe([(kind, 1) for kind in lasting])
    assert [(run.state_name, run.run_count) for run in runs.values()] == [("Failed", 1)] * len(lasting)


def test_the_logs_of_retries_hold_no_traceback_and_no_path() -> None:
    run = probe([(DiskError, 1 + phases.RETRIES)])["probe 0"]
    assert (run.state_name, run.run_count) == ("Failed", 1 + phases.RETRIES)
    lines = log_lines(run, "Finished in state Failed")
    assert any("Retry 1/3" in line for line in lines)
    assert not any(speaks_of_a_place(line.replace("/3 ", " ")) for line in lines), lines
