"""The embedded servers start, are found again, and never outlive who should end them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect

from infra.ports import choose_port, is_free
from infra.prefect_server import prefect_environment, start_prefect
from infra.process import PID_FILE, Service, launch, recorded, serve, stop, stop_all
from infra.s3_server import S3Server, start_s3
from model.errors import ServerError
from tasks.store import Store


def eventually_gone(pid: int, limit_s: float = 5.0) -> bool:
    deadline = time.monotonic() + limit_s
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def start_in_another_process(folder: Path, keep: bool) -> tuple[subprocess.Popen[str], int]:
    """A process that starts the store and then sleeps; returns it and the store's pid."""
    code = (
        "import sys, time; from pathlib import Path; from infra.s3_server import start_s3;"
        f"print(start_s3(Path(sys.argv[1]), keep={keep}).pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        return process, int(said.readline())


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_restart_keeps_objects_credentials_and_port_and_writes_nowhere_else(tmp_path: Path) -> None:
    first = start_s3(tmp_path / "s3")
    store = Store(first.environment())
    store.ensure_bucket()
    store.put("a", b"kept")
    os.kill(first.pid, signal.SIGKILL)  # a crash
    assert eventually_gone(first.pid)
    second = start_s3(tmp_path / "s3")
    assert (second.url, second.access_key, second.secret_key) == (
        first.url,
        first.access_key,
        first.secret_key,
    )
    assert second.pid != first.pid
    assert Store(second.environment()).get("a") == b"kept"
    assert (tmp_path / "s3" / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert second.secret_key not in repr(second)
    listening = {c.laddr.port for c in psutil.Process(second.pid).net_connections() if c.status == "LISTEN"}
    assert 6060 not in listening  # no profiler
    assert stop(second.pid_file) and eventually_gone(second.pid)
    assert not stop(second.pid_file)


def test_the_folder_may_be_moved_between_two_starts(tmp_path: Path) -> None:
    first = start_s3(tmp_path / "old name")
    store = Store(first.environment())
    store.ensure_bucket()
    store.put("a", bytes(range(200)))
    stop(first.pid_file)
    (tmp_path / "old name").rename(tmp_path / "new")
    second = start_s3(tmp_path / "new")
    try:
        assert Store(second.environment()).get("a") == bytes(range(200))
        assert not (tmp_path / "old name").exists()
    finally:
        stop(second.pid_file)


def test_a_first_start_that_was_killed_half_way_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "objects" / "cardiofed").mkdir(parents=True)
    (tmp_path / "objects" / "cardiofed" / "juicefs_uuid").write_text("half")
    (tmp_path / "meta.db").write_bytes(b"")
    stop(start_s3(tmp_path).pid_file)


def test_a_second_start_takes_the_running_server(s3_server: S3Server) -> None:
    again = start_s3(s3_server.pid_file.parent)
    assert (again.pid, again.url) == (s3_server.pid, s3_server.url)


def test_a_taken_port_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is taken") as error:
            start_s3(tmp_path, port=port)
    assert "another port" in error.value.mend
    assert not (tmp_path / PID_FILE).exists()


def test_a_folder_remembers_its_port_until_somebody_takes_it(tmp_path: Path) -> None:
    port = choose_port(tmp_path, None)
    assert choose_port(tmp_path, None) == port
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
        assert choose_port(tmp_path, None) != port


def test_a_server_that_dies_shows_its_last_words(tmp_path: Path) -> None:
    service = Service(
        name="haunted",
        command=lambda port: ["/bin/sh", "-c", f"echo a ghost sits on {port}; exit 3"],
        environment=lambda _: {"PATH": os.defpath},
        answers=lambda _: False,
        patience_s=20,
    )
    with pytest.raises(ServerError, match=r"haunted server .* ended by itself(.|\n)*a ghost sits on"):
        serve(service, tmp_path, None, keep=False)
    assert not (tmp_path / PID_FILE).exists()


def test_a_server_that_never_answers_is_ended(tmp_path: Path) -> None:
    service = Service(
        name="mute",
        command=lambda _: ["/bin/sleep", "60"],
        environment=lambda _: {"PATH": os.defpath},
        answers=lambda _: False,
        patience_s=0.5,
    )
    with pytest.raises(ServerError, match="did not answer within"):
        serve(service, tmp_path, None, keep=False)
    assert not any(process.name() == "sleep" for process in psutil.Process().children(recursive=True))


def test_a_damaged_store_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    stop(start_s3(tmp_path).pid_file)
    for leftover in tmp_path.glob("meta.db-*"):
        leftover.unlink()
    (tmp_path / "meta.db").write_bytes(b"no database at all")
    with pytest.raises(ServerError, match=r"cannot be made or opened(.|\n)*not a database"):
        start_s3(tmp_path)
    assert (tmp_path / "objects" / "cardiofed" / "chunks").exists()


def test_unreadable_credentials_are_named(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text("{")
    with pytest.raises(ServerError, match="cannot be read") as error:
        start_s3(tmp_path)
    assert error.value.where.endswith("credentials.json")


def test_a_killed_parent_leaves_no_server(tmp_path: Path) -> None:
    parent, pid = start_in_another_process(tmp_path, keep=False)
    assert psutil.pid_exists(pid)
    with pytest.raises(ServerError, match=f"belongs to process {parent.pid}"):
        start_s3(tmp_path)
    kill(parent)
    assert eventually_gone(pid)


def test_a_kept_server_outlives_its_parent_is_taken_over_and_ended_by_stop_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.process._TERM_S", 0.5)
    monkeypatch.setattr("infra.s3_server._ANSWER_S", 1)
    parent, pid = start_in_another_process(tmp_path / "s3", keep=True)
    kill(parent)
    time.sleep(0.2)
    assert start_s3(tmp_path / "s3").pid == pid
    os.kill(pid, signal.SIGSTOP)  # it hangs: replaced, not waited for
    replaced = start_s3(tmp_path / "s3", keep=True)
    assert replaced.pid != pid and eventually_gone(pid)
    assert stop_all(tmp_path) == ["s3"]
    assert eventually_gone(replaced.pid)
    assert stop_all(tmp_path) == []


def test_a_pid_that_belongs_to_another_program_by_now_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        tree = {"pid": other.pid, "started": 1.0, "keep": True, "owner_pid": 1, "owner_started": 1.0}
        (tmp_path / PID_FILE).write_text(json.dumps(tree))
        assert recorded(tmp_path / PID_FILE) is None
        assert not stop(tmp_path / PID_FILE)
        assert other.poll() is None
        other.kill()


def test_stop_ends_the_children_too_and_kills_what_does_not_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.process._TERM_S", 0.5)
    script = "trap '' TERM; sleep 60 & sleep 60 & wait; wait"  # the sleeps inherit the deaf ear
    child = launch(["/bin/sh", "-c", script], {"PATH": os.defpath}, tmp_path, keep=False)
    deadline = time.monotonic() + 5
    while len(family := psutil.Process(child.pid).children(recursive=True)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert stop(tmp_path / PID_FILE)
    assert all(eventually_gone(process.pid) for process in [*family, child])


def test_the_prefect_server_is_healthy_knows_its_own_address_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # the user's own, to be ignored
    server = start_prefect(tmp_path / "prefect")
    with urllib.request.urlopen(f"{server.ui_url}/ui-settings") as answer:
        assert json.load(answer)["api_url"] == server.api_url
    assert (tmp_path / "prefect" / "home" / ".prefect" / "prefect.db").exists()
    assert prefect_environment(server.api_url, tmp_path / "prefect")["PREFECT_API_URL"] == server.api_url
    assert start_prefect(tmp_path / "prefect").pid == server.pid
    family = psutil.Process(server.pid).children(recursive=True)
    assert stop_all(tmp_path) == ["prefect"]
    assert all(eventually_gone(pid) for pid in [server.pid, *(process.pid for process in family)])


def test_more_listeners_than_prefect_answers_at_once_do_not_stop_a_request(tmp_path: Path) -> None:
    server = start_prefect(tmp_path / "prefect")
    url = server.api_url.replace("http:", "ws:") + "/events/in"

    async def asks_among_listeners() -> int:
        async with AsyncExitStack() as listeners:
            for _ in range(110):
                await listeners.enter_async_context(connect(url))
            async with httpx.AsyncClient(timeout=20.0) as client:
                return (await client.get(f"{server.api_url}/health")).status_code

    try:
        assert asyncio.run(asks_among_listeners()) == 200
    finally:
        stop_all(tmp_path)


def test_what_a_prefect_client_writes_stays_in_the_folder(tmp_path: Path) -> None:
    variables = prefect_environment("http://127.0.0.1:1/api", tmp_path)
    paths = [value for name, value in variables.items() if name.endswith(("_HOME", "_PATH"))]
    assert len(paths) == 3 and all(Path(path).is_relative_to(tmp_path) for path in paths)
    assert variables["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert variables["DO_NOT_TRACK"] == "1"
