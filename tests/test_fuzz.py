"""Whatever a stranger sends is read or refused: a small share of ``python -m tests.fuzz.run``, in every test run."""

from __future__ import annotations

from pathlib import Path

import pytest
from federation_files import use_store
from fuzz.admission import Admission
from fuzz.run import Tally, fuzz, in_process
from fuzz.targets import Target

from infra.s3_server import S3Server

CASES = {"package": 1000, "record": 680, "envelope": 600, "invitation": 200}
ADMISSIONS = 20
SECONDS_MAX, MEGABYTES_MAX = 10.0, 300.0
"""Of one case: what a slow and busy core may take."""


def check(tally: Tally, cases: int) -> None:
    assert tally.faults == []
    assert tally.outcomes.total() == cases
    assert tally.slowest[0] < SECONDS_MAX and tally.largest[0] < MEGABYTES_MAX


@pytest.mark.parametrize("kind", CASES)
def test_damage_ends_in_a_refusal_of_ours_or_in_something_usable(kind: str, tmp_path: Path) -> None:
    with in_process(tmp_path) as kinds:
        tally = fuzz(kind, kinds[kind], range(CASES[kind]), seed=7)
    check(tally, CASES[kind])
    assert tally.outcomes["accepted"] > 0


def test_damage_from_one_hospital_never_stops_the_others(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_store(monkeypatch, s3_server.environment(bucket="fuzz"))
    round_1 = Admission(tmp_path_factory, tmp_path / "run")
    tally = fuzz("admission", Target(round_1.send, round_1.admit), range(ADMISSIONS), seed=7)
    check(tally, ADMISSIONS)


def test_a_case_can_be_drawn_again(tmp_path: Path) -> None:
    with in_process(tmp_path) as kinds:
        first, again = (fuzz("record", kinds["record"], range(50), seed=3) for _ in range(2))
    assert first.outcomes == again.outcomes


def test_anything_but_a_refusal_of_ours_is_a_fault() -> None:
    def read(_sent: object, _draw: object) -> str:
        raise KeyError("unforeseen")

    tally = fuzz("package", Target(lambda _: None, read), range(3), seed=1)
    assert tally.outcomes == {"fault": 3}
    assert tally.faults[0].startswith("package/0\n") and "unforeseen" in tally.faults[0]
