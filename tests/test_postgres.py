"""Prefect keeps its runs in PostgreSQL when it is told to, and finds them again after a restart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.ports import choose_port
from infra.prefect_server import DATABASE_FILE, PrefectServer, start_prefect
from infra.process import stop

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
PG_CTL = shutil.which("pg_ctl") or (str(_PROGRAMS[-1]) if _PROGRAMS else None)
USER = "postgres"  # the server refuses to be run by root

pytestmark = pytest.mark.skipif(PG_CTL is None, reason="needs PostgreSQL: apt-get install postgresql")


def pg_ctl(folder: Path, *arguments: str) -> None:
    command = [str(PG_CTL), "--pgdata", str(folder / "data"), "--wait", *arguments]
    runner = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
    subprocess.run([*runner, *command], check=True, stdout=subprocess.DEVNULL, cwd=folder)


@pytest.fixture
def database_url() -> Iterator[str]:
    """A PostgreSQL server of our own on loopback, without a password."""
    folder = Path(tempfile.mkdtemp(prefix="cardiofed-postgres-"))
    port = choose_port(folder, None)
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
    pg_ctl(folder, "initdb", "--options=--auth=trust --encoding=UTF8 --username=prefect")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    pg_ctl(folder, "start", "--log", str(folder / "data" / "log"), "--options", options)
    yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    pg_ctl(folder, "stop", "--mode=immediate")
    shutil.rmtree(folder)


def ask(server: PrefectServer, path: str, body: dict[str, object]) -> list[dict[str, str]]:
    request = urllib.request.Request(
        server.api_url + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        told = json.load(answer)
    return told if isinstance(told, list) else [told]


def test_prefect_on_postgresql_keeps_what_it_knows_over_a_restart(database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "prefect"
    server = start_prefect(folder, database_url=database_url)
    ask(server, "/work_pools/", {"name": "site-hillcrest", "type": "process"})
    assert stop(server.pid_file)
    again = start_prefect(folder)  # the folder remembers it, a password among it
    assert (folder / DATABASE_FILE).stat().st_mode & 0o777 == 0o600
    assert not list(folder.rglob("prefect.db"))
    names = {pool["name"] for pool in ask(again, "/work_pools/filter", {})}
    plain = start_prefect(folder, database_url="")
    assert plain.pid != again.pid and not ask(plain, "/work_pools/filter", {})
    stop(plain.pid_file)
    assert names == {"site-hillcrest"}
