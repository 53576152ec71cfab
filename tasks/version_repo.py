"""The repository of the versions: git and DVC in one folder, blind to how the user configured either."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from botocore.exceptions import BotoCoreError, ClientError

from model.errors import ConfigError, DiskError
from tasks.files import write_atomic
from tasks.settings import Environment

REMOTE_PREFIX = "dvc"
"""Where in the bucket DVC keeps its objects."""

_BRANCH = "main"
_GIT_WAIT_S = 5.0
_README = """\
Every tag `round-NNNN` holds what that round published, in `rounds/NNNN/`.

    git clone THIS_FOLDER versions && cd versions
    git checkout round-0002
    dvc remote modify --local store access_key_id ...      # of a store made here: store/credentials.json of the run
    dvc remote modify --local store secret_access_key ...
    dvc remote modify --local store ssl_verify ...         # the CA's file, where the store has one of its own
    export AWS_REQUEST_CHECKSUM_CALCULATION=when_required AWS_RESPONSE_CHECKSUM_VALIDATION=when_required
    dvc pull rounds/0002.dvc

The hub writes here. It goes back to the branch `main` when it versions the next round.
"""


def prepare(repo: Path, env: Environment) -> None:
    """Bring the repository into the state in which a round can be added; changes nothing that is right."""
    _clear_locks(repo)
    git(repo, "init", "-q", "-b", _BRANCH)  # also completes one that was killed
    git(repo, "config", "user.name", "cardiofed hub")
    git(repo, "config", "user.email", "hub@cardiofed.invalid")
    if git(repo, "branch", "--list", _BRANCH) and git(repo, "rev-parse", "--abbrev-ref", "HEAD") != _BRANCH:
        git(repo, "checkout", "-q", _BRANCH)  # somebody looked at an older round
    tracked = {
        ".dvc/config": _remote_config(env),
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
        ".dvcignore": "*.tmp\n",
        "README.md": _README,
    }
    for name, text in tracked.items():
        _write_if_new(repo / name, text, mode=0o666)
    _write_if_new(repo / ".dvc" / "config.local", _local_config(repo, env), mode=0o600)
    commit_paths(repo, tuple(tracked), "Where the objects are")


def _remote_config(env: Environment) -> str:
    lines = [
        "[core]",
        "remote = store",
        "analytics = false",
        "check_update = false",
        "['remote \"store\"']",
        f"url = s3://{env.s3_bucket}/{REMOTE_PREFIX}",
        f"endpointurl = {_quoted(env.s3_endpoint)}",
        f"region = {env.s3_region}",
        "connect_timeout = 5",
        "read_timeout = 60",
    ]
    return "\n".join(lines) + "\n"


def _local_config(repo: Path, env: Environment) -> str:
    """Secrets, and what holds on this machine only; the endpoint too, for tags made when it was another."""
    lines = [
        "[core]",
        f"site_cache_dir = {_quoted(str(repo.absolute() / '.dvc' / 'tmp' / 'site'))}",
        "['remote \"store\"']",
        f"endpointurl = {_quoted(env.s3_endpoint)}",
        f"access_key_id = {_quoted(env.s3_access_key)}",
        f"secret_access_key = {_quoted(env.s3_secret_key.get_secret_value())}",
        *([f"ssl_verify = {_quoted(str(env.ca_bundle.absolute()))}"] if env.ca_bundle else []),
    ]
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    return f"'{value}'" if '"' in value else f'"{value}"'


def _write_if_new(path: Path, text: str, mode: int) -> None:
    if not path.exists() or path.read_bytes() != text.encode():
        write_atomic(path, text.encode(), mode)


@contextlib.contextmanager
def dvc_in(repo: Path) -> Iterator[Any]:
    """DVC on this repository, in this process, without bars and hints on the terminal."""
    from dvc.repo import Repo  # takes seconds, and few commands need it

    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    logging.getLogger("dvc.progress").setLevel(logging.CRITICAL)
    with Repo(str(repo)) as dvc:
        dvc.scm_context.quiet = True
        yield dvc


def dvc_errors() -> tuple[type[Exception], ...]:
    """What DVC's calls raise when disk, lock or store fail them."""
    from dvc.exceptions import DvcException

    return (DvcException, BotoCoreError, ClientError, OSError)


def commit_paths(repo: Path, paths: tuple[str, ...], message: str) -> None:
    """Commit these paths unless nothing changed."""
    git(repo, "add", "--force", "--", *paths)
    if git(repo, "status", "--porcelain", "--untracked-files=no", "--", *paths):
        git(repo, "commit", "-q", "-m", message, "--", *paths)


def git(repo: Path, *arguments: str) -> str:
    """Run git on this repository and no other, blind to the user's configuration, hooks and signing keys."""
    program = shutil.which("git")
    if program is None:
        raise ConfigError("git is not installed", "PATH", "install git (Debian: apt install git)")
    environment = {
        "PATH": f"{Path(program).parent}{os.pathsep}{os.defpath}",
        "HOME": str(repo),
        "LC_ALL": "C",
        "GIT_DIR": str(repo.absolute() / ".git"),
        "GIT_WORK_TREE": str(repo.absolute()),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
    }
    options = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsync=all", "-c", "gc.auto=0"]
    command = [program, *options, "-c", "safe.directory=*", *arguments]
    done = subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        what = f"git {arguments[0]} failed: {' '.join(done.stderr.split())}"
        raise DiskError(what, str(repo), "mend what git names in that folder, then run again")
    return done.stdout.strip()


@contextlib.contextmanager
def one_writer(repo: Path) -> Iterator[None]:
    """One version at a time; the kernel drops the lock of a killed process."""
    path = repo / ".dvc" / "tmp" / "writer.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        mend = "choose a folder this user may write"
        raise DiskError(f"the versions cannot be written: {error.strerror}", str(repo), mend) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _clear_locks(repo: Path) -> None:
    """Remove the lock files of killed processes; those of a git or DVC that still runs here stay."""
    deadline = time.monotonic() + _GIT_WAIT_S
    while (git_locks := _git_locks(repo)) and _git_runs_in(repo) and time.monotonic() < deadline:
        time.sleep(0.1)
    if not _git_runs_in(repo):
        for path in git_locks:
            path.unlink(missing_ok=True)
    tmp = repo / ".dvc" / "tmp"
    with (tmp / "lock").open("a") as lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # DVC holds it while it works
        (tmp / "rwlock").unlink(missing_ok=True)


def _git_locks(repo: Path) -> list[Path]:
    git = repo / ".git"
    return [*git.glob("*.lock"), *(git / "refs").rglob("*.lock")]


def _git_runs_in(repo: Path) -> bool:
    for process in psutil.process_iter(["name", "cwd"]):
        if process.info["name"] == "git" and process.info["cwd"]:
            folder = Path(process.info["cwd"])
            if folder == repo.resolve() or repo.resolve() in folder.parents:
                return True
    return False
