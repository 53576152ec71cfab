"""One live federation for the whole session, its twin, and the table of what was done to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from check import check_round, immutable, missing_versions, unheard
from federation_files import SITES
from machines import Federation
from operating import begin_round, finish_round, operate
from table import Table
from twin import make_twin, play

from infra.s3_server import S3Server
from tasks.ledger import candidates_key, close_key, merge_key, plan_key, update_key
from tasks.records import Close
from tasks.store import Store
from tasks.workspace import Workspace

STEPS: dict[str, Callable[[int], str]] = {
    "opened": plan_key,
    "the first update": lambda number: update_key(SITES[0], number),
    "admitted": candidates_key,
    "merged": merge_key,
    "closed": close_key,
}
"""What happens in a round, in order, and what shows it."""


@dataclass
class Chaos:
    """What a test works with: rounds that are begun, struck, seen to their end and compared.

    Attributes:
        federation: that is struck.
        twin: that is not.
        table: where faults are noted.
        sound: no round of it has failed its comparison.
        last: round that ended last.
        spoilt: keys whose bytes were replaced on purpose.
    """

    federation: Federation
    twin: Workspace
    table: Table
    sound: bool = True
    last: int = 0
    spoilt: list[str] = field(default_factory=list)
    _before: dict[str, str] = field(default_factory=dict)

    def begin(self) -> int:
        """Have the hub open the next round."""
        self.sound = False
        self._before = immutable(self.federation)
        return begin_round(self.federation)

    def reach(self, number: int, step: str, delay_s: float) -> str:
        """Go on to a moment of the round: some seconds after one of :data:`STEPS`; returns it in words."""
        key = STEPS[step](number)
        operate(
            self.federation, number, lambda: self.federation.store.exists(key), f"round {number} is {step}"
        )
        time.sleep(delay_s)
        return f"{delay_s:.1f} s after {step}"

    def end(
        self,
        number: int,
        fresh: Sequence[str] = SITES,
        late: Sequence[str] = (),
        before_admission: Callable[[Store], None] = lambda _: None,
    ) -> Close:
        """See a round to its end, play it on the twin, and compare."""
        finish_round(self.federation, number)
        play(self.twin, number, fresh, late, before_admission)
        close = check_round(self.federation, self.twin, number, self.spoilt)
        after = immutable(self.federation)
        assert {key: after.get(key) for key in self._before} == self._before
        word = f"{close.outcome}, degraded" if close.degraded else close.outcome
        self.table.ended(number, word, self.federation.presses)
        self.last, self.sound = number, True
        return close

    def close(self) -> None:
        """End everything; what was lost goes into the table."""
        try:
            if self.sound and self.last:
                self.table.lost += unheard(self.federation, self.last)
                assert not missing_versions(self.federation)
        finally:
            self.federation.down()


@dataclass
class _Keeper:
    current: Chaos | None = None

    def drop(self) -> None:
        if self.current is not None:
            self.current.close()
        self.current = None


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
    if _keeper.current is None:
        project = tmp_path_factory.mktemp("chaos")
        federation = Federation(project)
        store = Store(s3_server.environment(bucket=project.name))
        store.ensure_bucket()
        _keeper.current = Chaos(federation, make_twin(federation, project / "twin", store), table)
    yield _keeper.current
    if not _keeper.current.sound:
        _keeper.drop()
