"""A live federation, every machine a process of its own, fails and recovers: nothing of a patient is found outside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from archives import bring_in, marks_of, write_archives
from federation_files import SITES
from hospitals import WORDS, marks_of_cohort
from live_files import ENDED, Federation
from prefect.client.schemas.objects import StateType
from search import find_marks, in_database, in_folder, in_store, opened_at_hub

from infra.process import stop_all
from tasks.homes import HUB
from tasks.ledger import close_key, get_record
from tasks.privacy import ERRORS_FILE
from tasks.records import Close

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FAULTS = {"lakeside": "RuntimeError", "st-anna": "OSError"}


@dataclass(frozen=True)
class Live:
    """A federation of marked hospitals, and what must not be found."""

    federation: Federation
    watch: Path
    marks: dict[str, bytes]

    def outside(self) -> Iterator[tuple[str, bytes]]:
        """All that is not at a hospital: the bucket, its bytes on disk, Prefect's folder and database, the hub's."""
        root = self.federation.root
        yield from in_store(self.federation.store)
        yield from opened_at_hub(self.federation.store)
        for folder in (root / "store", root / "prefect", root / HUB):
            yield from in_folder(folder)
        yield from in_database(root / "prefect" / "home" / ".prefect" / "prefect.db")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, watch: Path) -> Iterator[Live]:
    home = tmp_path_factory.mktemp("live")
    exports = write_archives(home)
    federation = Federation(home, bring_in(exports), "imported")
    try:
        federation.up()
        yield Live(federation, watch, marks_of(exports) | marks_of_cohort(federation.root / "cohort"))
    finally:
        stop_all(federation.root)


@pytest.fixture(scope="module")
def said(live: Live) -> list[str]:
    """Two of three hospitals fail, errors full of marks; then they are retried; all that Prefect says of them."""
    federation = live.federation
    for site, kind in FAULTS.items():
        (live.watch / f"fault-{site}").write_text(f"{kind}\n{WORDS['trace']} {WORDS['patient']}")
    federation.command("round", "start")
    failed = [federation.await_run(1, f"round 1 at {site}", *ENDED) for site in FAULTS]
    assert all(run.state_type == StateType.FAILED for run in failed)
    for site in FAULTS:
        (live.watch / f"fault-{site}").unlink()
    federation.command("round", "retry")
    ended = federation.await_run(1, "federated round 1", *ENDED)
    assert ended.state_type == StateType.COMPLETED
    return [line for run in failed for line in federation.said_of(run, "Finished in state Failed")]


def test_a_live_round_with_failures_leaves_nothing_of_a_patient_outside_the_hospitals(
    live: Live, said: list[str]
) -> None:
    close = get_record(live.federation.store, close_key(1), Close)
    assert set(close.participants) == set(SITES) and not close.missing
    for site in FAULTS:
        at_home = (live.federation.root / "hospitals" / site / ERRORS_FILE).read_text()
        assert WORDS["trace"] in at_home and WORDS["patient"] in at_home
    places = list(live.outside())
    assert len(places) > 200 and sum(len(data) for _, data in places) > 1_000_000
    assert find_marks(live.marks, places) == []
    assert find_marks(live.marks, [("said", "\n".join(said).encode())]) == []


def test_a_live_federation_asks_nobody_outside_this_machine(live: Live, said: list[str]) -> None:
    assert not (live.watch / "out.log").exists()


def test_neither_hub_nor_hospitals_read_a_pickle(live: Live, said: list[str]) -> None:
    """Prefect's server hands its tasks to itself as pickles in memory; so does the pool that trains the base."""
    noted = live.watch / "pickle.log"
    lines = noted.read_text().splitlines() if noted.exists() else []
    within = ("infra.prefect_sqlite server start", "/cardiofed up ", "multiprocessing.spawn")
    assert [line for line in lines if not any(command in line for command in within)] == []


def test_what_a_hospital_writes_beside_the_rules_is_found(live: Live, said: list[str]) -> None:
    errors = live.federation.root / "hospitals" / "lakeside" / ERRORS_FILE
    live.federation.store.put("sites/lakeside/rounds/0001/errors.log", errors.read_bytes())
    leaks = find_marks(live.marks, live.outside())
    assert any(line == "word: trace in s3 sites/lakeside/rounds/0001/errors.log" for line in leaks)
