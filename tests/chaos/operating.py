"""The federation's operator: starts rounds and presses Retry where a run broke; nothing else."""

from __future__ import annotations

from collections.abc import Callable

from federation_files import SITES
from machines import Federation, Machine
from prefect_api import ACTIVE, BROKEN, Run
from until import until

from tasks.ledger import current_key, find_record
from tasks.records import Current

ROUND_S = 1200.0
"""No round takes so long, whatever strikes it."""
QUIET_S = 120.0
HUB_FLOW = "federated-round/hub"


def begin_round(federation: Federation) -> int:
    """Quick run of the hub's deployment, as the schedule would; returns the round that it works on."""
    until(lambda: not active(federation), "nothing runs before the round", QUIET_S, poll_s=1.0)
    federation.presses = 0
    found = find_record(federation.store, current_key(), Current)
    federation.prefect.begin(HUB_FLOW)
    if found is None:
        return 1
    return found.round + federation.over(found.round)


def operate(federation: Federation, number: int, done: Callable[[], object], what: str) -> None:
    """Press Retry where it is needed until something is so."""

    def pressed() -> object:
        if done():
            return True
        press(federation, number)
        return False

    until(pressed, what, ROUND_S, poll_s=1.0)


def finish_round(federation: Federation, number: int) -> None:
    """See the round to its end: the hub is done with it, and no run is under way."""
    operate(
        federation,
        number,
        lambda: federation.over(number) and not active(federation),
        f"round {number} is over",
    )


def press(federation: Federation, number: int) -> None:
    """Retry the newest run of every machine whose work on the round broke off; workers start by themselves."""
    for name, machine in federation.machines.items():
        if name not in federation.off and machine.worker() is None:
            machine.start()
    runs = federation.prefect.runs()
    for site in SITES:
        mine = [run for run in runs if run.pool == f"site-{site}" and run.round == number]
        if site not in federation.off:
            _retry_broken(federation, federation.machines[site], mine)
    hubs = [
        run for run in runs if run.pool == "hub" and run.state != "CANCELLED" and not _passed(run, number)
    ]
    if hubs:
        _retry_broken(federation, federation.hub, hubs)
    elif federation.hub.engine() is None and not federation.over(number):  # Prefect has forgotten it
        federation.prefect.begin(HUB_FLOW)
        federation.presses += 1


def active(federation: Federation) -> list[str]:
    """Runs that Prefect takes for waiting or under way."""
    return [f"{run.name}: {run.label}" for run in federation.prefect.runs() if run.state in ACTIVE]


def _retry_broken(federation: Federation, machine: Machine, runs: list[Run]) -> None:
    if not runs or any(run.state in ACTIVE for run in runs):
        return
    if runs[-1].state in BROKEN and machine.worker() is not None and machine.engine() is None:
        federation.prefect.retry(runs[-1].id)
        federation.presses += 1


def _passed(run: Run, number: int) -> bool:
    return run.round is not None and run.round < number
