"""Fixtures for all tests: one real S3 server per worker, one bucket of its own per test."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.process import stop
from infra.s3_server import S3Server, start_s3
from tasks.settings import Environment
from tasks.store import Store

if TYPE_CHECKING:
    from federation_files import NewRun

_BUCKETS = (f"test-{number:04d}" for number in itertools.count())


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors, but not one that DVC's own code causes in a library of its."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests' networks are tiny, and workers share the cores
    os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="prefect-home-"))  # not the user's own
    config.addinivalue_line("filterwarnings", "ignore:_NoneStep.value will soon raise:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def own_environment() -> Iterator[None]:
    """What the tests of a file made of this process (a site's, the hub's) ends with them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real store with authentication on; starts in about a second, on first use."""
    folder: Path = tmp_path_factory.mktemp("s3")
    server = start_s3(folder)
    yield server
    stop(server.pid_file)


@pytest.fixture
def s3_environment(s3_server: S3Server) -> Environment:
    """Settings of the session's store with a bucket no other test uses."""
    return s3_server.environment(bucket=next(_BUCKETS))


@pytest.fixture
def store(s3_environment: Environment) -> Store:
    """An empty bucket on the session's store."""
    made = Store(s3_environment)
    made.ensure_bucket()
    return made


@pytest.fixture
def start(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    s3_environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> NewRun:
    """A founded federation under ``section.key=value`` settings, in an empty bucket."""
    from federation_files import found, new_run, use_store  # torch heeds OMP_NUM_THREADS when it is imported

    use_store(monkeypatch, s3_environment)
    return lambda *overrides: found(new_run(tmp_path_factory, tmp_path / "run", *overrides))
