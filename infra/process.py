"""Child processes that end with us, or outlive us on purpose and can be ended later without a mistake."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from infra.ports import choose_port, remembered_port
from model.errors import ServerError
from tasks.files import json_bytes, write_atomic
from tasks.no_tracking import NO_TRACKING

PID_FILE, LOG_FILE = "server.pid", "server.log"
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
_TERM_S = 5.0  # seconds a process has to end in good order
_LOG_LINES = 15

# Runs in the child until the server's own program takes its place. It asks the kernel to be killed with the
# parent, and waits for "go" until the parent has written the pid file: a parent that dies before it leaves
# nothing behind.
_GUARD = """
import ctypes, os, sys
keep, *command = sys.argv[1:]
if keep == "no" and sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if sys.stdin.readline() != "go\\n":
    sys.exit(1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.execv(command[0], command)
"""

# The kernel's "parent" is the thread that forked. This one lives as long as the process.
_FORKER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forker")
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
_KEPT: set[int] = set()
_PID = os.getpid()


@dataclass(frozen=True)
class Child:
    """A process by pid and start, because pids are used again; written to its folder's pid file."""

    pid: int
    started: float
    """seconds since the epoch"""
    keep: bool
    """outlives the process that started it"""
    owner_pid: int
    owner_started: float


@dataclass(frozen=True)
class Service:
    """How to run one server and how to tell that it works."""

    name: str
    command: Callable[[int], Sequence[str]]
    """program and arguments for a port; the program as an absolute path"""
    environment: Callable[[int], Mapping[str, str]]
    """all its variables, for a port"""
    answers: Callable[[int], bool]
    """whether the server on this port is ours and works"""
    patience_s: float


def serve(service: Service, folder: Path, port: int | None, keep: bool) -> tuple[Child, int]:
    """Have the server of ``folder`` running: take the one that runs and works, else start one.

    Args:
        service: what to run.
        folder: everything it writes stays in here.
        port: the wanted one; None for a free one that the folder remembers.
        keep: whether it outlives this process.

    Returns:
        Its process and its port.

    Raises:
        ServerError: port taken, no answer in time, or the server belongs to another process that still runs.
    """
    with _locked(folder):
        found = recorded(folder / PID_FILE)
        if found is not None:
            at = remembered_port(folder)
            if at is not None and _reusable(found, folder, at, port, keep) and service.answers(at):
                return found, at
            stop(folder / PID_FILE)
        at = choose_port(folder, port)
        child = launch(service.command(at), service.environment(at), folder, keep)
        _await(service, child, at, folder)
        return child, at


def launch(command: Sequence[str], environment: Mapping[str, str], folder: Path, keep: bool) -> Child:
    """Start one process in ``folder``, its output in ``server.log``, its identity in ``server.pid``.

    Without ``keep`` the kernel kills it when this process ends, however that happens (Linux; elsewhere a
    normal end only).

    Args:
        command: program, as an absolute path, and its arguments.
        environment: all its variables; nothing is inherited.
        folder: its working folder.
        keep: whether it outlives this process.

    Returns:
        The process, by pid and start, as the pid file names it.

    Raises:
        ServerError: the program cannot be started.
    """
    log = folder / LOG_FILE
    if log.exists():
        log.replace(folder / f"{LOG_FILE}.1")
    try:
        popen = _FORKER.submit(_fork, command, environment, folder, keep).result()
    except OSError as error:
        raise ServerError(f"cannot start a process: {error}", str(folder), "check its permissions") from error
    _remember(popen, keep)
    me = psutil.Process()
    child = Child(popen.pid, psutil.Process(popen.pid).create_time(), keep, me.pid, me.create_time())
    write_atomic(folder / PID_FILE, json_bytes(asdict(child)), mode=0o600)
    _say_go(popen)
    return child


def recorded(pid_file: Path) -> Child | None:
    """The process a pid file names, if that very process is still alive."""
    try:
        child = Child(**json.loads(pid_file.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return child if _alive(child.pid, child.started) else None


def stop(pid_file: Path) -> bool:
    """End the process a pid file names, and its children: first asked, after seconds killed.

    Args:
        pid_file: as :func:`launch` wrote it; removed afterwards, and need not exist.

    Returns:
        Whether there was one to end; a pid that meanwhile belongs to another program is left alone.
    """
    child = recorded(pid_file)
    if child is not None:
        end_family(child.pid)
    if child is not None and (popen := _CHILDREN.pop(child.pid, None)):
        popen.wait()
    pid_file.unlink(missing_ok=True)
    return child is not None


def stop_all(run_folder: Path) -> list[str]:
    """End every server of a run, kept or not.

    Args:
        run_folder: holds the servers' folders, at any depth.

    Returns:
        The folders whose server was ended, below ``run_folder``; the deepest first, so workers before the servers
        they speak to.
    """
    files = sorted(run_folder.glob(f"**/{PID_FILE}"), key=lambda file: (-len(file.parts), file))
    return [str(file.parent.relative_to(run_folder)) for file in files if stop(file)]


def child_environment(folder: Path, own: Mapping[str, str]) -> dict[str, str]:
    """Variables for a server that shall know nothing of its user: what programs need to run, and ``own``.

    HOME and the temporary folder lie in ``folder``, so that a library's habits stay there too.
    """
    for name in ("home", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, **NO_TRACKING, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), **own}


def last_lines(log: Path, count: int = _LOG_LINES) -> str:
    """The end of a log for an error message, indented; a hint when it is empty."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        lines = []
    return "\n".join(f"    {line}" for line in lines) or "    (its log is empty)"


def _remember(popen: subprocess.Popen[bytes], keep: bool) -> None:
    for dead in [pid for pid, other in _CHILDREN.items() if other.poll() is not None]:
        del _CHILDREN[dead]
    _CHILDREN[popen.pid] = popen
    if keep:
        _KEPT.add(popen.pid)


@atexit.register
def _end_children() -> None:
    """At a normal end, where no kernel does it for us."""
    if os.getpid() != _PID:
        return  # a fork of ours, to which they do not belong
    for pid, popen in _CHILDREN.items():
        if pid not in _KEPT and popen.poll() is None:
            end_family(pid)
            popen.wait()


def _fork(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, keep: bool
) -> subprocess.Popen[bytes]:
    guard = [sys.executable, "-I", "-S", "-c", _GUARD, "yes" if keep else "no", *command]
    with (folder / LOG_FILE).open("wb") as log:
        return subprocess.Popen(
            guard,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )


def _say_go(popen: subprocess.Popen[bytes]) -> None:
    if popen.stdin is None:
        return
    with contextlib.suppress(BrokenPipeError):  # it died already; whoever waits for its answer reports that
        popen.stdin.write(b"go\n")
        popen.stdin.close()


def _await(service: Service, child: Child, port: int, folder: Path) -> None:
    """Return when the server answers; end it and raise when it dies or takes too long."""
    deadline = time.monotonic() + service.patience_s
    while not service.answers(port):
        died = _CHILDREN[child.pid].poll() is not None
        if died or time.monotonic() > deadline:
            stop(folder / PID_FILE)
            how = "ended by itself" if died else f"did not answer within {service.patience_s:.0f} s"
            what = f"the {service.name} server on port {port} {how}; its last words:"
            mend = "mend what they name, or choose another port or an empty folder"
            raise ServerError(f"{what}\n{last_lines(folder / LOG_FILE)}", str(folder / LOG_FILE), mend)
        time.sleep(0.1)


def _reusable(found: Child, folder: Path, at: int, wanted: int | None, keep: bool) -> bool:
    ours = (found.owner_pid, found.owner_started) == (psutil.Process().pid, psutil.Process().create_time())
    if not found.keep and not ours and _alive(found.owner_pid, found.owner_started):
        what = f"the server of this folder belongs to process {found.owner_pid}, which still runs"
        raise ServerError(what, str(folder), "wait for it, end it, or use another folder")
    lasts = found.keep or not keep
    return lasts and wanted in (None, at)


def _alive(pid: int, started: float) -> bool:
    """Whether that very process runs; a zombie does not."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 1.0  # clocks are set now and then
        return same and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end_family(pid: int) -> None:
    """End a process and its children: first asked, after seconds killed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.terminate()
        _, alive = psutil.wait_procs(family, timeout=_TERM_S)
        for member in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(alive, timeout=_TERM_S)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One start at a time per folder; the kernel drops the lock of a killed process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "start.lock").open("w")
    except OSError as error:
        mend = "choose a folder this user may write"
        raise ServerError(
            f"the server's folder cannot be written: {error.strerror}", str(folder), mend
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
