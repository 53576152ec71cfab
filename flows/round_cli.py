"""``cardiofed round …``: start a round by hand, retry what failed in one."""

from __future__ import annotations

import os
from pathlib import Path

import typer
from rich.console import Console

from flows.options import HubHome, Number, Run, Runs, hub_of

console = Console()
round_app = typer.Typer(no_args_is_help=True, help="Start a round by hand; retry what failed in one.")


@round_app.command("start")
def round_start(
    run: Run = "live", runs: Runs = Path("runs"), home: HubHome = None, number: Number = None
) -> None:
    """Have the hub run the round that is due: the open one if it has not ended, else the next."""
    page = _enter(hub_of(runs, run, home))
    from flows.retries import start_round

    run_id, name = start_round(number)
    console.print(f"started '{name}': {page}/runs/flow-run/{run_id}", soft_wrap=True)


@round_app.command("retry")
def round_retry(
    run: Run = "live", runs: Runs = Path("runs"), home: HubHome = None, number: Number = None
) -> None:
    """Retry what ended badly in a round, at the hub and at hospitals; what the ledger holds is not done again."""
    from tasks.homes import enter_home
    from tasks.ledger import plan_key
    from tasks.next_round import rounds_at_hand

    folder = hub_of(runs, run, home)
    page = _enter(folder)
    from flows.retries import retry_round, start_round

    ws, _ = enter_home(folder)
    wanted, *before = (number,) if number else rounds_at_hand(ws)
    names = [name for each in (wanted, *before) for name in retry_round(each)]
    if names:
        console.print(f"retried: {', '.join(names)}", soft_wrap=True)
        return
    if not ws.store.exists(plan_key(wanted)):
        said = f"nothing to retry, and round {wanted} is not open; `cardiofed round start` begins it"
        console.print(said, soft_wrap=True)
        return
    run_id, name = start_round(wanted)
    console.print(f"Prefect has no failed run of round {wanted}; started '{name}', which continues it:")
    console.print(f"{page}/runs/flow-run/{run_id}", soft_wrap=True)


def _enter(hub: Path) -> str:
    """Speak to the Prefect server of a hub from here on; gives the address of its pages."""
    from infra.prefect_server import prefect_environment
    from tasks.homes import read_home

    address = read_home(hub).prefect_api_url
    os.environ |= prefect_environment(address, hub / "worker")
    return address.removesuffix("/api")
