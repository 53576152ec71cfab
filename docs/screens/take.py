"""Take the pictures of the ops guide: a federation on the synthetic cohort, a hospital in trouble, a browser.

`make screens` runs it: ten minutes on two cores, with chromium from the system. It brings up a federation of its own
under runs/screens, with so little training that its numbers say nothing, and takes it down at the end. The pictures
stand beside this file:

    runs.png       all runs of a round in which one hospital has failed
    failed.png     what the failed run says
    retry.png      Retry
    status.png     where every hospital stands, as an artifact of the hub's run
    start.png      a round started by hand
    degraded.png   a round that closed without a hospital
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import Artifact, FlowRun, StateType
from prefect.client.schemas.sorting import ArtifactSort

from infra.process import PID_FILE, stop, stop_all
from tasks.homes import HUB, read_home

T = TypeVar("T")

PROJECT = Path(__file__).resolve().parents[2]
ROOT = PROJECT / "runs" / "screens"
SETTINGS = ("pretrain.steps=60", "training.steps=5")
LAME = "riverside"

WINDOW, PICTURE = {"width": 1600, "height": 1000}, (1280, 800)
COLOURS = 128
SETTLE_MS = 4000  # for what comes after the text: graphs, logs
PATIENCE_S = 600.0
ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)


class Album:
    """Pages of one Prefect server, and the pictures taken of them.

    Args:
        page: of the browser.
        address: of the server's pages.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page, self._address = page, address

    def open(self, path: str, text: str) -> None:
        """Go to a page and wait until it shows a text."""
        self.page.goto(f"{self._address}/{path}")
        self.page.get_by_text(text).first.wait_for(timeout=60_000)

    def take(self, name: str) -> None:
        """Take a picture of what the window shows: scaled down, few colours, so that it is small."""
        self.page.wait_for_timeout(SETTLE_MS)
        shown = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        small = shown.resize(PICTURE, Image.Resampling.LANCZOS).quantize(
            COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )  # a small red mark keeps its red
        small.save(Path(__file__).with_name(f"{name}.png"), optimize=True)


def main() -> None:
    """Bring a federation up, take the pictures, take it down."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("error: no browser found\n  where: PATH\n  mend:  apt-get install chromium")
    stop_all(ROOT)
    shutil.rmtree(ROOT, ignore_errors=True)
    try:
        cardiofed("up", "--every", "", *(part for setting in SETTINGS for part in ("--set", setting)))
        api = read_home(ROOT / HUB).prefect_api_url
        with (
            SyncPrefectClient(api) as client,
            sync_playwright() as playwright,
            playwright.chromium.launch(executable_path=browser) as opened,
        ):
            album = Album(opened.new_page(viewport=WINDOW), api.removesuffix("/api"))
            of_a_failure(album, client)
            of_a_degraded_round(album, client)
    finally:
        stop_all(ROOT)
        shutil.rmtree(ROOT, ignore_errors=True)


def of_a_failure(album: Album, client: SyncPrefectClient) -> None:
    """Round 1 waits for a hospital whose data is out of reach, until somebody presses Retry."""
    slices = ROOT / "hospitals" / LAME / "cohort" / LAME / "train.npz"
    away = slices.rename(ROOT / "away.npz")
    cardiofed("round", "start")
    name = f"round 1 at {LAME}"
    failed = until(lambda: run_in(client, name, ENDED))
    for site in sorted(path.name for path in (ROOT / "hospitals").iterdir()):
        until(lambda site=site: run_in(client, f"round 1 at {site}", (*ENDED, StateType.RUNNING)))
    album.open("runs", name)
    album.page.mouse.move(WINDOW["width"] / 2, WINDOW["height"] / 2)
    album.page.mouse.wheel(0, WINDOW["height"] / 2)
    album.take("runs")
    album.open(f"runs/flow-run/{failed.id}", "Finished in state Failed")
    album.take("failed")
    status = until(lambda: shown_status(client, f"for {LAME} to train"))
    album.open(f"artifacts/artifact/{status.id}", LAME)
    album.take("status")
    deployment = client.read_deployment_by_name(f"federated-round/{HUB}")
    album.open(f"deployments/deployment/{deployment.id}/run", "Parameters")
    album.take("start")
    away.rename(slices)
    album.open(f"runs/flow-run/{failed.id}", "Finished in state Failed")
    album.page.get_by_role("button", name="Retry").click()
    confirm = album.page.get_by_role("dialog").get_by_role("button", name="Retry")
    confirm.wait_for()
    album.take("retry")
    confirm.click()
    until(lambda: run_in(client, "federated round 1", ENDED))


def of_a_degraded_round(album: Album, client: SyncPrefectClient) -> None:
    """Round 2 closes without a hospital whose worker is not there."""
    stop(ROOT / "hospitals" / LAME / "worker" / PID_FILE)
    cardiofed("round", "start")
    run = until(lambda: run_in(client, "federated round 2", ENDED))
    album.open(f"runs/flow-run/{run.id}", "Degraded")
    album.page.get_by_text("Details", exact=True).click()
    album.take("degraded")


def cardiofed(*arguments: str) -> None:
    """Run a command on the federation."""
    program = Path(sys.executable).parent / "cardiofed"
    subprocess.run([program, *arguments, "--run", ROOT.name, "--runs", ROOT.parent], cwd=PROJECT, check=True)


def run_in(client: SyncPrefectClient, name: str, states: tuple[StateType, ...]) -> FlowRun | None:
    """A run by its name, if it is in one of these states."""
    found = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return next((run for run in found if run.state_type in states), None)


def shown_status(client: SyncPrefectClient, sentence: str) -> Artifact | None:
    """The newest status of round 1, once it says something."""
    status = client.read_artifacts(
        artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["status-0001"])),
        sort=ArtifactSort.CREATED_DESC,
    )[0]
    return status if sentence in str(status.description) else None


def until(found: Callable[[], T | None]) -> T:
    """Poll until something is found."""
    deadline = time.monotonic() + PATIENCE_S
    while (seen := found()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing within {PATIENCE_S:.0f} s")
        time.sleep(1)
    return seen


if __name__ == "__main__":
    main()
