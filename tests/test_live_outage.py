"""Outages of a live federation: a machine loses its power, all is taken down, Prefect loses its database.

One federation, whose story the fixtures tell; each begins where the one it asks for ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest
from federation_files import SITES
from live_files import ENDED, Federation, at_work_in, until
from prefect.client.schemas.objects import FlowRun, StateType

from infra.process import PID_FILE, stop, stop_all
from tasks.ledger import close_key, get_record
from tasks.records import Close

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LAME, *SOUND = ("lakeside", "hillcrest", "st-anna")
HUB_RUN, LAME_RUN = "federated round 1", f"round 1 at {LAME}"
SOUND_RUNS = [f"round 1 at {site}" for site in SOUND]


@dataclass(frozen=True)
class Outage:
    """What was there before and after everything was down.

    Attributes:
        before: the round's runs, when one machine had lost its power and the others still ran.
        left: the processes of the others, by folder.
        survivors: processes at work in the federation's folder when it was down.
        after: the round's runs, when everything was up again.
    """

    before: dict[str, FlowRun]
    left: dict[str, list[psutil.Process]]
    survivors: set[int]
    after: dict[str, FlowRun]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A federation in the middle of a round: two hospitals have trained, the hub waits for the third."""
    federation = Federation(tmp_path_factory.mktemp("live"))
    try:
        federation.up()
        federation.hide_data(LAME)
        federation.command("round", "start")
        federation.await_run(1, LAME_RUN, StateType.FAILED)
        until(lambda: federation.has_trained(1, *SOUND), "the others have trained")
        yield federation
    finally:
        stop_all(federation.root)


@pytest.fixture(scope="module")
def outage(live: Federation) -> Outage:
    """One hospital loses its power; then everything goes down, and comes up again."""
    for process in live.processes()[f"hospitals/{SOUND[0]}/worker"]:
        process.kill()
        process.wait()
    before, left = live.runs(1), live.processes()
    live.command("down")
    survivors = at_work_in(live.root)
    live.give_back_data(LAME)
    live.up()
    until(lambda: not _under_way(live.runs(1)), "no run is under way")
    return Outage(before, left, survivors, live.runs(1))


@pytest.fixture(scope="module")
def forgotten(live: Federation, outage: Outage) -> dict[str, FlowRun]:
    """All runs that Prefect knows after it has lost its database and was asked for a round."""
    stop(live.root / "prefect" / PID_FILE)
    for file in (live.root / "prefect" / "home" / ".prefect").glob("prefect.db*"):
        file.unlink()
    live.up()
    live.command("round", "start")
    live.await_run(1, HUB_RUN, *ENDED)
    until(lambda: not _under_way(live.runs(1)), "no run is under way")
    return live.runs(1)


def test_down_in_the_middle_of_a_round_leaves_no_process(outage: Outage) -> None:
    assert len(outage.left["hub/worker"]) > 1  # its run was under way
    assert not outage.survivors


def test_a_run_whose_machine_lost_its_power_does_not_stay_running(outage: Outage) -> None:
    assert {outage.before[name].state_name for name in (HUB_RUN, *SOUND_RUNS)} == {"Running"}
    assert {outage.after[name].state_name for name in (HUB_RUN, *SOUND_RUNS)} == {"Crashed"}


def test_a_hospital_at_work_holds_no_lease_that_a_lost_link_to_prefect_ends(outage: Outage) -> None:
    states = [outage.before[name].state for name in SOUND_RUNS]
    assert [state and state.state_details.deployment_concurrency_lease_id for state in states] == [None, None]


def test_without_prefects_database_a_new_run_continues_the_open_round(
    live: Federation, outage: Outage, forgotten: dict[str, FlowRun]
) -> None:
    assert not {run.id for run in forgotten.values()} & {run.id for run in outage.before.values()}
    assert {run.state_name for run in forgotten.values()} == {"Completed"}
    assert live.current_round() == 1
    assert get_record(live.store, close_key(1), Close).missing == ()
    assert live.trainings(1) == [(1, 1)] * len(SITES)


def _under_way(runs: dict[str, FlowRun]) -> bool:
    return any(run.state_type not in ENDED for run in runs.values())
