"""Rounds can be checked out and replayed, whenever the hub was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from model.errors import RoundError, StoreUnreachableError
from tasks.settings import Environment
from tasks.store import Store
from tasks.version import Versioned, open_versions, version_round

GIT_ENV = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}


def publish(store: Store, number: int) -> None:
    for key in ("plan.json", "close.json", "candidates/4f1c.safetensors", "adapter.safetensors"):
        store.put(f"global/rounds/{number:04d}/{key}", f"{key} of round {number}".encode())
    for site in ("st-anna", "north"):
        for name in ("adapter.safetensors", "update.json", "ratings.json"):
            store.put(f"sites/{site}/rounds/{number:04d}/{name}", f"{site} {name} {number}".encode())


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env={**GIT_ENV, "HOME": str(folder)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def dvc_pull(folder: Path, env: Environment, target: str) -> None:
    """What a user types, with credentials in the environment."""
    home = folder.parent / "home"
    variables = {
        **GIT_ENV,
        "HOME": str(home),
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        "DVC_NO_ANALYTICS": "1",
        "AWS_ACCESS_KEY_ID": env.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": env.s3_secret_key.get_secret_value(),
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    command = [sys.executable, "-m", "dvc", "pull", "-q", target]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return tmp_path / "versions"


def test_a_clone_gets_the_adapters_of_an_old_round_back(
    repo: Path, store: Store, s3_environment: Environment, tmp_path: Path
) -> None:
    for number in (1, 2):
        publish(store, number)
        made = version_round(repo, store, number, s3_environment)
        assert (made.tag, made.files, made.skipped) == (f"round-000{number}", 10, ())
        assert made.commit == git(repo, "rev-parse", f"{made.tag}^{{commit}}")
    assert git(repo, "status", "--porcelain") == ""

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repo), str(clone))
    git(clone, "checkout", "-q", "round-0001")
    assert not (clone / "rounds" / "0002.dvc").exists()
    dvc_pull(clone, s3_environment, "rounds/0001.dvc")
    folder = clone / "rounds" / "0001"
    assert (folder / "adapter.safetensors").read_bytes() == b"adapter.safetensors of round 1"
    assert (folder / "candidates" / "4f1c.safetensors").exists()
    assert (folder / "sites" / "north" / "ratings.json").read_bytes() == b"north ratings.json 1"


def test_secrets_stay_out_of_git_and_are_readable_by_their_owner_only(
    repo: Path, s3_environment: Environment
) -> None:
    open_versions(repo, s3_environment)
    secret = s3_environment.s3_secret_key.get_secret_value()
    local = repo / ".dvc" / "config.local"
    assert secret in local.read_text()
    assert local.stat().st_mode & 0o777 == 0o600
    assert secret not in git(repo, "log", "-p", "--all")
    assert git(repo, "status", "--porcelain") == ""
    head = git(repo, "rev-parse", "HEAD")
    open_versions(repo, s3_environment)
    assert git(repo, "rev-parse", "HEAD") == head


def test_a_round_versioned_by_a_thread_is_left_as_it_is(
    repo: Path, store: Store, s3_environment: Environment
) -> None:
    publish(store, 3)
    made: list[Versioned] = []
    thread = threading.Thread(target=lambda: made.append(version_round(repo, store, 3, s3_environment)))
    thread.start()
    thread.join()
    first = made[0]
    store.put("sites/north/rounds/0003/evaluation.json", b"late")
    received = store.bytes_received
    assert version_round(repo, store, 3, s3_environment) == first
    assert store.bytes_received == received


def test_a_remote_that_lost_the_round_gets_it_again(
    repo: Path, store: Store, s3_environment: Environment
) -> None:
    publish(store, 1)
    first = version_round(repo, store, 1, s3_environment)
    lost = [info.key for info in store.list("dvc/")]
    assert len(lost) == 11  # ten files and their listing
    for key in lost:
        store._client.delete_object(Bucket=store.bucket, Key=key)
    assert version_round(repo, store, 1, s3_environment) == first
    assert [info.key for info in store.list("dvc/")] == lost


def test_stale_locks_and_leftovers_of_a_killed_run_do_not_stop_it(
    repo: Path, store: Store, s3_environment: Environment
) -> None:
    open_versions(repo, s3_environment)
    publish(store, 1)
    (repo / ".git" / "index.lock").touch()
    (repo / ".git" / "refs" / "heads" / "main.lock").touch()
    (repo / ".dvc" / "tmp" / "lock").write_text("999999")
    (repo / ".dvc" / "tmp" / "rwlock").write_text('{"write": {"roun')
    folder = repo / "rounds" / "0001"
    folder.mkdir(parents=True)
    (folder / ".adapter.safetensors.ab.tmp").write_bytes(b"half")
    (folder / "plan.json").write_bytes(b"damaged")
    version_round(repo, store, 1, s3_environment)
    assert not (folder / ".adapter.safetensors.ab.tmp").exists()
    assert (folder / "plan.json").read_bytes() == b"plan.json of round 1"


@pytest.mark.parametrize("missing", ["tag", "push, commit and tag"])
def test_half_a_version_is_completed(
    repo: Path, store: Store, s3_environment: Environment, missing: str
) -> None:
    publish(store, 1)
    first = version_round(repo, store, 1, s3_environment)
    git(repo, "tag", "-d", "round-0001")
    if "commit" in missing:
        git(repo, "reset", "-q", "--mixed", "HEAD~1")
    if "push" in missing:
        for info in store.list("dvc/"):
            store._client.delete_object(Bucket=store.bucket, Key=info.key)
    again = version_round(repo, store, 1, s3_environment)
    assert (again.tag, again.files, again.bytes) == (first.tag, first.files, first.bytes)
    assert len(store.list("dvc/")) == 11
    assert git(repo, "rev-list", "--count", "HEAD") == "2"


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.3, 1.0, 2.0, 2.5, 3.0, 3.5, 4.0])
def test_a_kill_at_any_time_leaves_a_round_that_can_be_versioned(
    repo: Path, store: Store, s3_environment: Environment, after_s: float
) -> None:
    publish(store, 1)
    code = (
        "import sys; from pathlib import Path; from tasks.settings import load_environment;"
        "from tasks.store import Store; from tasks.version import version_round; e = load_environment();"
        "version_round(Path(sys.argv[1]), Store(e), 1, e)"
    )
    variables = {
        **os.environ,
        "CARDIOFED_S3_ENDPOINT": s3_environment.s3_endpoint,
        "CARDIOFED_S3_ACCESS_KEY": s3_environment.s3_access_key,
        "CARDIOFED_S3_SECRET_KEY": s3_environment.s3_secret_key.get_secret_value(),
        "CARDIOFED_S3_BUCKET": s3_environment.s3_bucket,
    }
    with subprocess.Popen([sys.executable, "-c", code, str(repo)], env=variables) as process:
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    assert version_round(repo, store, 1, s3_environment).files == 10
    assert git(repo, "status", "--porcelain") == ""


def test_a_checked_out_old_round_does_not_stop_the_next(
    repo: Path, store: Store, s3_environment: Environment
) -> None:
    for number in (1, 2):
        publish(store, number)
        version_round(repo, store, number, s3_environment)
    git(repo, "checkout", "-q", "round-0001")
    publish(store, 3)
    version_round(repo, store, 3, s3_environment)
    assert git(repo, "ls-tree", "--name-only", "round-0003", "rounds/").split() == [
        "rounds/.gitignore",
        "rounds/0001.dvc",
        "rounds/0002.dvc",
        "rounds/0003.dvc",
    ]


def test_a_sites_false_or_foreign_objects_are_left_out(
    repo: Path, store: Store, s3_environment: Environment
) -> None:
    publish(store, 1)
    broken = "sites/north/rounds/0001/adapter.safetensors"
    raw = {"Bucket": store.bucket, "Metadata": {"sha256": store.sha256_of(broken)}}
    store._client.put_object(Key=broken, Body=b"other bytes", **raw)
    store.put("sites/north/rounds/0001/anything.exe", b"foreign")
    store.put("sites/north/rounds/0001/x/update.json", b"foreign")
    made = version_round(repo, store, 1, s3_environment)
    assert made.skipped == (broken,)
    assert made.files == 9


def test_an_empty_round_is_an_error(repo: Path, store: Store, s3_environment: Environment) -> None:
    with pytest.raises(RoundError, match="round 9 published nothing"):
        version_round(repo, store, 9, s3_environment)


def test_a_store_that_is_gone_is_named(repo: Path, s3_environment: Environment) -> None:
    gone = s3_environment.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})
    with pytest.raises(StoreUnreachableError):
        version_round(repo, Store(gone), 1, gone)


def test_the_surrounding_repository_is_left_alone(tmp_path: Path, s3_environment: Environment) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / ".gitignore").write_text("/runs/\n")
    before = {path: path.read_bytes() for path in (tmp_path / ".git").rglob("*") if path.is_file()}
    inner = tmp_path / "runs" / "versions"
    open_versions(inner, s3_environment)
    assert git(inner, "rev-parse", "--show-toplevel") == str(inner)
    assert {p: p.read_bytes() for p in (tmp_path / ".git").rglob("*") if p.is_file()} == before


def test_a_git_that_still_works_there_keeps_its_lock(repo: Path, s3_environment: Environment) -> None:
    open_versions(repo, s3_environment)
    lock = repo / ".git" / "index.lock"
    lock.touch()
    slow = subprocess.Popen(
        ["git", "cat-file", "--batch"], cwd=repo, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    ender = threading.Timer(1.0, slow.communicate)
    try:
        assert psutil.Process(slow.pid).name() == "git"
        ender.start()
        open_versions(repo, s3_environment)  # waits for it, then takes the lock for stale
    finally:
        ender.join()
    assert slow.returncode == 0
