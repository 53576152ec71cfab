"""A live federation of three tiny hospitals: the command line, Prefect and the ledger as ops see them; a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import psutil
from federation_files import PARAMS_FILE, SETTINGS, SITES, write_hospitals
from playwright.sync_api import sync_playwright
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterTags,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import ArtifactSort, FlowRunSort
from prefect.states import Scheduled

from flows.calls import round_tag
from infra.prefect_server import prefect_environment
from infra.process import PID_FILE, recorded
from tasks.contact import Contact
from tasks.events import count_events
from tasks.homes import HUB, Credentials, read_home
from tasks.ledger import contact_key, current_key, find_record, get_record, update_key
from tasks.records import Current
from tasks.settings import Environment
from tasks.store import Store
from tasks.trust import with_seals

T = TypeVar("T")

PATIENCE_S = 240.0
"""For any one thing to happen; a machine that does much else is slow to start processes."""
ENDED = {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}
_QUICK = ("pretrain.steps=10", "judge.tolerance=0.99", "privacy.encrypt=true")
_RUN = "live"


def until(found: Callable[[], T | None], what: str) -> T:
    """Poll until something is found."""
    deadline = time.monotonic() + PATIENCE_S
    while not (seen := found()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.3)
    return seen


def names_a_file(text: str) -> bool:
    """Whether a file, a folder or a patient of a site is named."""
    return bool(re.search(r"(^|\s|')/\w|\.(npz|nii|py|json|csv|safetensors)\b|patient\d", text))


class Federation:
    """What stands under a folder once ``cardiofed up`` has run there."""

    def __init__(self, folder: Path, data: Path | None = None, layout: str = "acdc") -> None:
        self._runs, self._data = folder / "runs", data or write_hospitals(folder / "data")
        self._layout = layout
        self.root = self._runs / _RUN

    def up(self, cron: str = "") -> None:
        settings = [part for setting in (*SETTINGS, *_QUICK) for part in ("--set", setting)]
        data = ("--data", str(self._data), "--layout", self._layout)
        self.command("up", *data, "--every", cron, *settings)

    def command(self, *arguments: str) -> str:
        """What ``cardiofed`` prints in a terminal of 80 columns."""
        program = Path(sys.executable).parent / "cardiofed"
        where = ("--run", _RUN, "--runs", str(self._runs))
        return _run([str(program), *arguments, *where], {"COLUMNS": "80", "PYTHONUTF8": "1"})

    def prefect(self, *arguments: str) -> str:
        """What ``prefect`` prints, speaking to this federation's server."""
        program = Path(sys.executable).parent / "prefect"
        environment = prefect_environment(self.api_url, self.root / "prefect")
        return _run([str(program), *arguments], environment)

    @property
    def api_url(self) -> str:
        return read_home(self.root / HUB).prefect_api_url

    @property
    def client(self) -> SyncPrefectClient:
        return SyncPrefectClient(self.api_url)

    @property
    def store(self) -> Store:
        home = read_home(self.root / HUB)
        own = Credentials.model_validate_json((self.root / HUB / "credentials.json").read_bytes())
        where = home.model_dump(include={"s3_endpoint", "s3_bucket", "s3_region"})
        store = Store(Environment(**where, s3_access_key=own.access_key, s3_secret_key=own.secret_key))
        return with_seals(store, self.root / HUB)

    def runs(self, number: int) -> dict[str, FlowRun]:
        """The runs of a round that Prefect knows, by name."""
        chosen = FlowRunFilter(tags=FlowRunFilterTags(all_=[round_tag(number)]))
        with self.client as client:
            found = client.read_flow_runs(flow_run_filter=chosen, sort=FlowRunSort.START_TIME_ASC)
        assert len({run.name for run in found}) == len(found), found
        return {run.name: run for run in found}

    def await_run(self, number: int, name: str, *states: StateType) -> FlowRun:
        """A run of a round, once it is in one of these states."""

        def found() -> FlowRun | None:
            run = self.runs(number).get(name)
            return run if run and run.state_type in states else None

        return until(found, f"'{name}' is one of {[state.value for state in states]}")

    def runs_of_hub(self) -> list[FlowRun]:
        """All runs of the hub's deployment, the one due first first."""
        hub = DeploymentFilter(name=DeploymentFilterName(any_=[HUB]))
        with self.client as client:
            return client.read_flow_runs(deployment_filter=hub, sort=FlowRunSort.EXPECTED_START_TIME_ASC)

    def end_schedule(self) -> None:
        with self.client as client:
            deployment = client.read_deployment_by_name(f"federated-round/{HUB}")
            for schedule in deployment.schedules:
                client.update_deployment_schedule(deployment.id, schedule.id, active=False)

    def make_due(self, run_id: UUID) -> None:
        with self.client as client:
            client.set_flow_run_state(run_id, Scheduled(), force=True)

    def await_shown(self, number: int, sentence: str) -> str:
        """The table of a round's status in the pages, once its sentence says something."""
        chosen = ArtifactFilter(key=ArtifactFilterKey(any_=[f"status-{number:04d}"]))

        def found() -> str | None:
            with self.client as client:
                shown, *_ = client.read_artifacts(artifact_filter=chosen, sort=ArtifactSort.CREATED_DESC)
            return str(shown.data) if sentence in str(shown.description) else None

        return until(found, f"the status in the pages says '{sentence}'")

    def described_parameters(self) -> dict[str, str]:
        """Parameter → what the form for a run by hand says of it, for the hub."""
        with self.client as client:
            schema = client.read_deployment_by_name(f"federated-round/{HUB}").parameter_openapi_schema
        return {name: about["description"] for name, about in (schema or {})["properties"].items()}

    def said_of(self, run: FlowRun, last: str) -> list[str]:
        """Every text about a run that Prefect keeps: its state's message, and its log once that says ``last``."""
        chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))

        def found() -> list[str] | None:
            with self.client as client:
                lines = [log.message for log in client.read_logs(chosen, limit=200)]
            return lines if any(last in line for line in lines) else None

        return [str(run.state and run.state.message), *until(found, f"a log with '{last}'")]

    def kept_of(self, run: FlowRun) -> list[str]:
        """Content of the artifacts of a run, those that Prefect makes by itself among them."""
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        with self.client as client:
            return [str(artifact.data) for artifact in client.read_artifacts(flow_run_filter=chosen)]

    def contact(self, number: int, site: str) -> Contact:
        return get_record(self.store, contact_key(site, number), Contact)

    def current_round(self) -> int | None:
        found = find_record(self.store, current_key(), Current)
        return found and found.round

    def trainings(self, number: int) -> list[tuple[int, int]]:
        """Per hospital: how often it says that it has trained in a round, and how often it truly has in all rounds."""
        told = [self.contact(number, site).trainings for site in SITES]
        return list(zip(told, [count_events(self._site_home(site), "train") for site in SITES], strict=True))

    def has_trained(self, number: int, *sites: str) -> bool:
        store = self.store
        return all(store.exists(update_key(site, number)) for site in sites)

    def hide_data(self, site: str) -> None:
        self._slices(site).rename(self.root / f"{site}.npz")

    def give_back_data(self, site: str) -> None:
        (self.root / f"{site}.npz").rename(self._slices(site))

    def processes(self) -> dict[str, list[psutil.Process]]:
        """What the pid files name, and its children, by folder."""
        found = {file.parent: recorded(file) for file in self.root.glob(f"**/{PID_FILE}")}
        return {
            str(folder.relative_to(self.root)): _family(child.pid) for folder, child in found.items() if child
        }

    def _slices(self, site: str) -> Path:
        return self.root / "hospitals" / site / "cohort" / site / "train.npz"

    def _site_home(self, site: str) -> Path:
        return self.root / "hospitals" / site / "sites" / site


def at_work_in(root: Path) -> set[int]:
    """Processes whose working folder or command line lies under a folder."""
    found = set()
    for process in psutil.process_iter(["cwd", "cmdline"]):
        told = [process.info["cwd"] or "", *(process.info["cmdline"] or [])]
        if any(str(root) in text for text in told):
            found.add(process.pid)
    return found


def find_browser() -> str | None:
    """Chromium or its sister, where one is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


def press_retry(browser: str, page_url: str) -> None:
    """Open the page of a run, press Retry, and confirm it in the dialog."""
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=browser) as opened:
        page = opened.new_page()
        page.goto(page_url)
        page.get_by_role("button", name="Retry").click(timeout=PATIENCE_S * 1000)
        with page.expect_response(re.compile("/set_state$")) as answer:
            page.get_by_role("dialog").get_by_role("button", name="Retry").click()
        assert answer.value.ok


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=PARAMS_FILE.parent,
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _family(pid: int) -> list[psutil.Process]:
    head = psutil.Process(pid)
    return [head, *head.children(recursive=True)]
