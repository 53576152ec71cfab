"""A live federation as ops meet it: schedule, a hospital that fails, Retry in the browser, a hub that fails, the end.

One federation, whose story the fixtures tell; each begins where the one it asks for ended.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from federation_files import SITES
from live_files import ENDED, Federation, at_work_in, find_browser, names_a_file, press_retry, until
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import PrefectHTTPStatusError

from infra.process import stop_all
from tasks.homes import HUB
from tasks.ledger import close_key, get_record
from tasks.records import Close

pytestmark = pytest.mark.timeout(900)  # processes take half a minute to start where others compute as well

LAME, *SOUND = ("lakeside", "hillcrest", "st-anna")
HUB_RUN, LAME_RUN = "federated round 1", f"round 1 at {LAME}"


@dataclass(frozen=True)
class Waiting:
    """How the round looks while it waits for a hospital whose work failed."""

    hub: FlowRun
    lame: FlowRun
    said: list[str]
    kept: list[str]
    status: str
    shown: str
    phase: str
    trainings: list[tuple[int, int]]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A federation that starts a round every minute; the data of one hospital is out of reach."""
    federation = Federation(tmp_path_factory.mktemp("live"))
    try:
        federation.up("* * * * *")
        federation.hide_data(LAME)
        yield federation
    finally:
        stop_all(federation.root)


@pytest.fixture(scope="module")
def waiting(live: Federation) -> Waiting:
    """Nobody starts a round, and one starts; it waits for the hospital that failed."""
    lame = live.await_run(1, LAME_RUN, *ENDED)
    until(lambda: live.has_trained(1, *SOUND), "the others have trained")
    return Waiting(
        hub=live.runs(1)[HUB_RUN],
        lame=lame,
        said=live.said_of(lame, "Finished in state Failed"),
        kept=live.kept_of(lame),
        status=live.command("status"),
        shown=live.await_shown(1, f"for {LAME} to train"),
        phase=live.contact(1, LAME).phase,
        trainings=live.trainings(1),
    )


@pytest.fixture(scope="module")
def second(live: Federation, waiting: Waiting) -> FlowRun:
    """The schedule's second run, made due at once; afterwards no more are scheduled."""
    planned = next(run for run in live.runs_of_hub() if run.id != waiting.hub.id)
    live.make_due(planned.id)
    found = until(
        lambda: next((r for r in live.runs_of_hub() if r.id == planned.id and r.state_type in ENDED), None),
        "the second run is over",
    )
    live.end_schedule()
    return found


@pytest.fixture(scope="module")
def failed(live: Federation, waiting: Waiting, second: FlowRun) -> FlowRun:
    """Retry brings the hospital back; the hub then stumbles over a torn record, after the round has closed."""
    live.give_back_data(LAME)
    torn = live.root / HUB / "federation" / "rounds" / "0000" / "plan.json"
    torn.parent.mkdir(parents=True)
    torn.write_text("{")
    browser = find_browser()
    if browser:
        press_retry(browser, f"{live.api_url.removesuffix('/api')}/runs/flow-run/{waiting.lame.id}")
    else:
        live.make_due(waiting.lame.id)
    run = live.await_run(1, HUB_RUN, *ENDED)
    torn.unlink()
    torn.parent.rmdir()
    return run


@pytest.fixture(scope="module")
def retried(live: Federation, failed: FlowRun) -> dict[str, FlowRun]:
    """All runs of the round, once the hub's was retried at the command line."""
    live.prefect("flow-run", "retry", str(failed.id))
    live.await_run(1, HUB_RUN, StateType.COMPLETED, StateType.CRASHED)
    return live.runs(1)


@pytest.fixture(scope="module")
def log(live: Federation, retried: dict[str, FlowRun]) -> list[str]:
    """All that the hub's run has logged."""
    return live.said_of(retried[HUB_RUN], "Finished in state Failed")


def test_a_round_starts_by_schedule_and_waits_for_a_hospital_that_failed(waiting: Waiting) -> None:
    assert waiting.hub.auto_scheduled and waiting.hub.state_name == "Running"
    assert waiting.lame.state_name == "Failed"
    assert waiting.phase == "failed"
    assert dict(zip(SITES, waiting.trainings, strict=True)) == {LAME: (0, 0), **dict.fromkeys(SOUND, (1, 1))}


def test_a_failed_run_tells_the_hub_nothing_of_the_files_of_its_site(waiting: Waiting) -> None:
    assert len(waiting.said) > 2
    assert not [text for text in waiting.said if names_a_file(text)]


def test_a_failed_run_leaves_no_path_of_its_site_at_the_hub(waiting: Waiting) -> None:
    assert not [text for text in waiting.kept if names_a_file(text)]


def test_status_says_for_whom_the_round_waits_and_why(waiting: Waiting) -> None:
    assert waiting.status.startswith("round 1: waiting")
    assert f"for {LAME} to train" in waiting.status
    (row,) = [line.split() for line in waiting.status.splitlines() if line.split()[:1] == [LAME]]
    assert "failed" in row


def test_status_keeps_to_80_columns_with_a_row_per_site(waiting: Waiting) -> None:
    lines = waiting.status.splitlines()
    assert max(map(len, lines)) <= 80
    rule = next(i for i, line in enumerate(lines) if set(line.strip()) == {"─"})
    assert [line.split()[0] for line in lines[rule + 1 : rule + 1 + len(SITES)]] == list(SITES)
    assert not lines[rule + 1 + len(SITES)].strip()


def test_the_pages_say_for_whom_the_round_waits_and_why(waiting: Waiting) -> None:
    assert "failed" in waiting.shown


def test_the_form_for_a_round_by_hand_says_what_an_empty_field_means(live: Federation) -> None:
    assert "empty" in live.described_parameters()["round"]


@pytest.mark.parametrize("parameters", [{"round": 0}, {"round": "two"}, {"rounds": 2}])
def test_parameters_that_mean_nothing_are_refused_before_a_run_is_made(
    live: Federation, parameters: dict[str, object]
) -> None:
    with live.client as client:
        deployment = client.read_deployment_by_name(f"federated-round/{HUB}")
        with pytest.raises(PrefectHTTPStatusError, match="409"):
            client.create_flow_run_from_deployment(deployment.id, parameters=parameters)


def test_a_second_schedule_is_cancelled_while_a_round_runs(second: FlowRun) -> None:
    assert second.auto_scheduled
    assert second.state_name == "Cancelled"
    assert "concurrency limit" in str(second.state and second.state.message)


def test_retry_in_the_browser_brings_a_hospital_back_into_the_round(
    live: Federation, failed: FlowRun, retried: dict[str, FlowRun]
) -> None:
    if find_browser() is None:
        pytest.skip("needs chromium: apt-get install chromium")
    lame = retried[LAME_RUN]
    assert (lame.state_name, lame.run_count) == ("Completed", 2)
    assert "train, rate, judge, adapt" in str(lame.state and lame.state.message)
    close = get_record(live.store, close_key(1), Close)
    assert (close.participants, close.missing) == (SITES, ())


def test_a_hub_that_fails_after_the_close_is_retried_in_the_same_round(
    live: Federation, failed: FlowRun, retried: dict[str, FlowRun]
) -> None:
    assert failed.state_name == "Failed"
    close = get_record(live.store, close_key(1), Close)
    assert failed.end_time is not None and close.closed < failed.end_time
    hub = retried[HUB_RUN]
    assert (hub.id, hub.run_count, hub.state_name) == (failed.id, 2, "Completed")
    assert hub.state is not None and hub.state.message == close.reason
    assert hub.parameters == {"round": 1}


def test_the_log_of_the_hubs_run_tells_what_every_phase_came_to(log: list[str]) -> None:
    assert any("updates admitted" in line for line in log)


def test_no_hospital_trains_twice_and_every_run_of_the_round_completes(
    live: Federation, retried: dict[str, FlowRun]
) -> None:
    assert {name: run.state_name for name, run in retried.items()} == dict.fromkeys(
        [HUB_RUN, *(f"round 1 at {site}" for site in SITES)], "Completed"
    )
    assert live.trainings(1) == [(1, 1)] * len(SITES)
    assert live.current_round() == 1


def test_down_ends_what_up_started_and_nothing_else(live: Federation, retried: dict[str, FlowRun]) -> None:
    left = live.processes()
    assert set(left) == {"prefect", "store", "hub/worker", *(f"hospitals/{site}/worker" for site in SITES)}
    command = [sys.executable, "-c", "import time; time.sleep(600)", str(live.root)]
    with subprocess.Popen(command, cwd=live.root / HUB) as other:
        said = live.command("down")
        survivors = at_work_in(live.root)
        other.kill()
    assert set(" ".join(said.split()).removeprefix("ended: ").split(", ")) == set(left)
    assert not [process for family in left.values() for process in family if process.is_running()]
    assert survivors == {other.pid}
