"""One live federation for the whole session, its twin, and the table of what was done to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from machines import Federation
from rounds import Chaos
from table import Table
from twin import make_twin

from infra.s3_server import S3Server
from tasks.store import Store


@dataclass
class _Keeper:
    current: Chaos | None = None

    def drop(self) -> None:
        dropped, self.current = self.current, None
        if dropped is not None:
            dropped.close()


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """Written where ``CHAOS_TABLE`` says."""
    made = Table()
    yield made
    if "CHAOS_TABLE" in os.environ:
        made.write(Path(os.environ["CHAOS_TABLE"]))


@pytest.fixture(scope="session")
def _keeper(table: Table) -> Iterator[_Keeper]:
    keeper = _Keeper()
    yield keeper
    keeper.drop()


@pytest.fixture
def chaos(
    _keeper: _Keeper, table: Table, tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server
) -> Iterator[Chaos]:
    """The session's federation; a new one after a test that failed, whose ledger may hold anything."""
    made = _keeper.current
    if made is None:
        project = tmp_path_factory.mktemp("chaos")
        federation = Federation(project)
        store = Store(s3_server.environment(bucket=project.name))
        store.ensure_bucket()
        made = _keeper.current = Chaos(federation, make_twin(federation, project / "twin", store), table)
    yield made
    if not made.sound:
        _keeper.drop()
