"""What can happen to a federation, one function per fault; each notes in the table what it did and when."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from link import Trap
from machines import PROGRAM, Federation, Machine, clean_environment
from operating import HUB_FLOW
from table import Table
from until import until

from infra.prefect_server import prefect_environment
from tasks.ledger import adapter_key, update_key
from tasks.store import Store

MINUTE_S = 60.0
CLOCK_S = "CHAOS_CLOCK_S"
_SECOND_HUB = "from flows.hub_round import federated_round; federated_round()"


def kill_in_request(
    table: Table, machine: Machine, kind: str, request: str, chance: Random, strike: Callable[[], bool]
) -> Trap:
    """Kill what a machine runs at a random byte of a request, or when its last byte is out.

    Args:
        table: where it is noted.
        machine: whose request.
        kind: of the fault.
        request: the end of the object's key, as a pattern.
        chance: of the moment.
        strike: kills, and says whether there was anything to kill.
    """
    at = chance.choice((chance.random(), 1.0))

    def spring(rest: bytes) -> bytes | None:
        if strike():
            table.struck(kind, f"{plain(request)} {at:.0%} out")
        return rest if at == 1.0 else None

    return machine.link.set_trap(rf"PUT \S*/{request} ", at, spring)


def kill_training(table: Table, machine: Machine, store: Store, number: int, seconds: float) -> None:
    """``kill -9`` of what a hospital runs, so many seconds after it said that it trains."""
    time.sleep(seconds)
    waits = store.exists(update_key(machine.name, number))
    if machine.kill():
        kind = "kill -9 of a site that waits" if waits else "kill -9 of a site's training"
        table.struck(kind, f"{seconds:.1f} s in")


def damage_in_transit(table: Table, machine: Machine, request: str, chance: Random, cut: bool) -> Trap:
    """Flip a byte of an upload on its way, or cut the connection in the middle of it."""
    at = chance.uniform(0.0, 0.9)

    def spring(rest: bytes) -> bytes | None:
        table.struck(
            f"upload {'cut off' if cut else 'corrupted'} in transit", f"{plain(request)} {at:.0%} out"
        )
        return None if cut else bytes([rest[0] ^ 0xFF]) + rest[1:]

    return machine.link.set_trap(rf"PUT \S*/{request} ", at, spring)


def damage_at_rest(table: Table, federation: Federation, site: str, number: int, truncate: bool) -> Trap:
    """Replace an upload's bytes behind everybody's back, when the hub is about to learn that it is there."""
    store, update, adapter = federation.store, update_key(site, number), adapter_key(site, number)

    def spring(rest: bytes) -> bytes:
        replace_bytes(store, adapter, truncate)
        kind = f"upload {'truncated' if truncate else 'corrupted'} in the store"
        table.struck(kind, "as the hub finds update.json")
        return rest

    return federation.hub.link.set_trap(rf"\w+ \S*/{update} ", 1.0, spring, lambda: store.exists(update))


def replace_bytes(store: Store, key: str, truncate: bool) -> None:
    """Other bytes under the hash that was announced."""
    data, announced = store.get(key), str(store.sha256_of(key))
    bad = data[: len(data) // 2] if truncate else data[:-1] + bytes([data[-1] ^ 1])
    store._client.put_object(Bucket=store.bucket, Key=key, Body=bad, Metadata={"sha256": announced})


def restart_store(table: Table, federation: Federation, moment: str) -> None:
    """``kill -9`` of the store, and a new one on its files."""
    federation.kill_store()
    table.struck("S3 killed and restarted", moment)
    federation.start_store()


def stop_store(table: Table, federation: Federation, moment: str) -> None:
    """A minute without the store."""
    federation.stop_store()
    table.struck("S3 down for a minute", moment)
    time.sleep(MINUTE_S)
    federation.start_store()


def restart_prefect(table: Table, federation: Federation, moment: str) -> None:
    """End the Prefect server and start it again."""
    federation.stop_prefect()
    table.struck("Prefect restarted", moment)
    federation.start_prefect()


def lose_prefect(table: Table, federation: Federation, moment: str) -> None:
    """End the Prefect server, delete its database, and do what the documentation says: ``up``."""
    federation.stop_prefect()
    for file in (federation.root / "prefect").glob("home/.prefect/prefect.db*"):
        file.unlink()
    table.struck("Prefect's database deleted", moment)
    federation.up()


def freeze(table: Table, machine: Machine, moment: str) -> Callable[[], None]:
    """Stop a machine's work in mid-step, as a suspended machine does; returns what wakes it."""
    engine = machine.engine()
    assert engine is not None
    engine.send_signal(signal.SIGSTOP)
    table.struck("site suspended for longer than its lease", moment)
    return lambda: engine.send_signal(signal.SIGCONT)


def start_second_hub(table: Table, federation: Federation, moment: str) -> None:
    """Another run of the hub's deployment, which must be turned away."""
    run_id = federation.prefect.begin(HUB_FLOW)
    table.struck("second hub run, in Prefect", moment)

    def cancelled() -> bool:
        run = federation.prefect.run(run_id)
        return run is not None and run.state == "CANCELLED"

    until(cancelled, "the second hub run is turned away", poll_s=1.0)


def start_foreign_hub(table: Table, federation: Federation, moment: str) -> None:
    """Another machine with the hub's credentials and keys, around Prefect's limit; the lease must turn it away."""
    folder = federation.project / "second-hub"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in (path for kind in ("*.json", "*.pem", "*.key") for path in federation.hub.folder.glob(kind)):
        shutil.copy2(file, folder / file.name)
    shutil.copytree(federation.hub.folder / "base", folder / "base")
    environment = clean_environment() | prefect_environment(federation.prefect.url, folder)
    table.struck("second hub run, from another machine", moment)
    done = subprocess.run(
        [sys.executable, "-c", _SECOND_HUB],
        env=environment | {"CARDIOFED_HOME": str(folder)},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert "another process works for the hub" in done.stdout + done.stderr, done.stderr


def fill_disk(table: Table, machine: Machine, moment: str) -> Callable[[], None]:
    """Not a byte left at a hospital; returns what frees the space again."""
    ballast = machine.folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError as error:
        assert error.errno == errno.ENOSPC
    table.struck("disk full at a site", moment)
    return ballast.unlink


def set_clock(table: Table, machine: Machine, clock: Mapping[str, str]) -> None:
    """Restart a machine's worker with a clock that is off; see :func:`wrong_clock`."""
    machine.stop()
    machine.start(clock)
    table.struck("site's clock off by an hour", f"{clock[CLOCK_S]} s, a whole round")


def ask_doctor(machine: Machine, clock: Mapping[str, str]) -> str:
    """What ``cardiofed doctor`` says on a machine whose clock is off."""
    command = [PROGRAM, "doctor", "--quick", "--home", str(machine.folder)]
    done = subprocess.run(
        command,
        env=clean_environment() | clock | {"COLUMNS": "200"},
        cwd=machine.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def wrong_clock(folder: Path, off_s: int) -> dict[str, str] | None:
    """Variables that put the clock of a process off; None without a C compiler to build what does it."""
    library, source = folder / "clock.so", Path(__file__).with_name("clock.c")
    if shutil.which("cc") is None:
        return None
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), CLOCK_S: f"{off_s:+d}"}


def plain(request: str) -> str:
    """A pattern for people."""
    return request.replace(r"\S+", "…").replace("\\", "")
