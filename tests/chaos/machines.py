"""A tiny federation that is really up: its servers, its machines and their processes, and who operates it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml
from federation_files import SITES, tiny_params, write_hospitals
from link import Link
from prefect_api import Prefect

from infra.ports import remembered_port
from infra.prefect_server import start_prefect
from infra.process import PID_FILE, child_environment, launch, recorded, stop
from infra.s3_server import start_s3
from infra.workers import start_worker
from tasks.files import json_bytes, write_atomic
from tasks.homes import HOME_FILE, read_home
from tasks.ledger import find_record, over_key
from tasks.next_round import Over
from tasks.settings import Params
from tasks.store import Store
from tasks.trust import with_seals

NAME = "chaos"
PROGRAM = str(Path(sys.executable).parent / "cardiofed")
SETTINGS = (
    "training.steps=400",  # seconds, so that there is something to interrupt
    "federation.rounds=9999",
    "privacy.encrypt=true",
    f"federation.deadlines={{{', '.join(f'{site}: 900' for site in SITES)}}}",
)
UP_S = 400.0
SMALL_DISK, DISK_MB = "st-anna", 64


def chaos_params() -> Params:
    """Settings of the federation and of its undisturbed twin."""
    return tiny_params(*SETTINGS)


@dataclass(frozen=True)
class Machine:
    """The hub's machine, or a hospital's.

    Attributes:
        name: ``hub`` or the hospital.
        folder: its own.
        link: its line to the store.
    """

    name: str
    folder: Path
    link: Link

    @property
    def pool(self) -> str:
        """Its work pool."""
        return "hub" if self.name == "hub" else f"site-{self.name}"

    @property
    def home(self) -> Path:
        """Where its events and its work stand."""
        return self.folder / "hub" if self.name == "hub" else self.folder / "sites" / self.name

    def worker(self) -> psutil.Process | None:
        """Its worker, if that runs."""
        child = recorded(self.folder / "worker" / PID_FILE)
        return None if child is None else psutil.Process(child.pid)

    def engine(self) -> psutil.Process | None:
        """The process that runs a flow there now."""
        try:
            worker = self.worker()
            family = worker.children(recursive=True) if worker else []
            return next((child for child in family if "prefect.engine" in child.cmdline()), None)
        except psutil.NoSuchProcess:
            return None

    def kill(self) -> bool:
        """``kill -9`` of what runs there; whether there was anything."""
        engine = self.engine()
        if engine is None:
            return False
        engine.send_signal(signal.SIGKILL)
        return True

    def start(self, preload: Mapping[str, str] | None = None) -> None:
        """Have its worker running.

        Args:
            preload: further variables of its processes; a clock that is off comes by them.
        """
        role = "hub" if self.name == "hub" else "site"
        if preload is None:
            start_worker(self.folder, role)
            return
        home = self.folder / "worker"
        command = [sys.executable, PROGRAM, role, "work", "--home", str(self.folder)]
        launch(command, child_environment(home, preload), home, keep=True)

    def stop(self) -> None:
        """End its worker in good order."""
        stop(self.folder / "worker" / PID_FILE)

    def cut_power(self) -> bool:
        """Kill worker and work at once; whether there was work."""
        worker, busy = self.worker(), self.engine() is not None
        for process in [worker, *worker.children(recursive=True)] if worker else []:
            process.kill()
        return busy

    def point(self) -> None:
        """Have it speak to the store over its link."""
        home = read_home(self.folder).model_copy(update={"s3_endpoint": self.link.url})
        write_atomic(self.folder / HOME_FILE, json_bytes(home.model_dump(mode="json")))


@dataclass
class Federation:
    """Hub, hospitals, store and Prefect of one run, each a process of its own.

    Attributes:
        project: folder of the settings, the data and the run.
        machines: by name.
        store: the ledger, for a look past all links.
        presses: how often Retry was pressed, or a run started anew, in the round.
        off: machines that are off on purpose, or that nobody repairs for now.
        small_disk: whether one hospital has a disk of its own, small enough to be filled.
    """

    project: Path
    machines: dict[str, Machine] = field(default_factory=dict)
    presses: int = 0
    off: set[str] = field(default_factory=set)
    small_disk: bool = False

    def __post_init__(self) -> None:
        self.project.mkdir(parents=True, exist_ok=True)
        settings = yaml.safe_dump(chaos_params().model_dump(mode="json"))
        (self.project / "params.yaml").write_text(settings)
        if not (self.project / "cine").exists():
            write_hospitals(self.project / "cine")
        folders = {"hub": self.root / "hub"} | {site: self.root / "hospitals" / site for site in SITES}
        self.small_disk = _mount(folders[SMALL_DISK])
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        port = remembered_port(self.root / "store")
        assert port is not None
        self.machines = {name: Machine(name, folder, Link(port)) for name, folder in folders.items()}
        for machine in self.machines.values():
            machine.point()
        server = start_s3(self.root / "store", keep=True)
        self.store = with_seals(Store(server.environment()), self.root / "hub")

    @property
    def root(self) -> Path:
        """Folder of the run."""
        return self.project / "runs" / NAME

    @property
    def hub(self) -> Machine:
        """The hub's machine."""
        return self.machines["hub"]

    @property
    def prefect(self) -> Prefect:
        """The API of its Prefect server."""
        return Prefect(f"http://127.0.0.1:{remembered_port(self.root / 'prefect')}/api")

    def up(self) -> None:
        """``cardiofed up``, as at the start and after a lost database."""
        command = [PROGRAM, "up", "--run", NAME, "--data", "cine", "--every", ""]
        log = self.project / "up.log"
        with log.open("ab") as file:
            done = subprocess.run(
                command, cwd=self.project, env=clean_environment(), stdout=file, stderr=file, timeout=UP_S
            )
        assert done.returncode == 0, log.read_text()
        for machine in self.machines.values():
            machine.point()

    def down(self) -> None:
        """End everything."""
        subprocess.run(
            [PROGRAM, "down", "--run", NAME],
            cwd=self.project,
            env=clean_environment(),
            check=True,
            timeout=120,
        )
        for machine in self.machines.values():
            machine.link.close()
        if self.small_disk:
            subprocess.run(["umount", "--lazy", str(self.root / "hospitals" / SMALL_DISK)], check=True)

    def stop_store(self) -> None:
        """End the store in good order."""
        stop(self.root / "store" / PID_FILE)

    def kill_store(self) -> None:
        """``kill -9`` of the store."""
        child = recorded(self.root / "store" / PID_FILE)
        if child is not None:
            os.kill(child.pid, signal.SIGKILL)

    def start_store(self) -> None:
        """The same store on the same port."""
        start_s3(self.root / "store", keep=True)

    def stop_prefect(self) -> None:
        """End the Prefect server."""
        stop(self.root / "prefect" / PID_FILE)

    def start_prefect(self) -> None:
        """The same server on the same port."""
        start_prefect(self.root / "prefect", keep=True)

    def over(self, number: int) -> bool:
        """Whether the hub is done with a round."""
        return find_record(self.store, over_key(number), Over) is not None


def _mount(folder: Path) -> bool:
    """A disk of its own for a folder; needs the right to mount."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0


def clean_environment() -> dict[str, str]:
    """This process's, without what points at another store or server."""
    ours = ("CARDIOFED_", "PREFECT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"OMP_NUM_THREADS": "1"}
