"""``cardiofed up``, ``status``, ``round …``, ``hub …`` and ``site …``: a federation of separate machines."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

console = Console()
hub_app = typer.Typer(no_args_is_help=True, help="The hub's machine.")
site_app = typer.Typer(no_args_is_help=True, help="A hospital's machine.")

Home = Annotated[Path, typer.Option(help="The machine's own folder.")]


@hub_app.command("work")
def hub_work(home: Home) -> None:
    """Be the hub's Prefect worker until ended."""
    _work(home)


@site_app.command("work")
def site_work(home: Home) -> None:
    """Be a hospital's Prefect worker until ended; it only ever connects outward."""
    _work(home)


@site_app.command("run")
def site_run(
    home: Home,
    wait: Annotated[int, typer.Option(help="Seconds to wait for the hub before leaving.")] = 0,
    every: Annotated[int, typer.Option(help="Seconds until cron comes again; the hub waits as long.")] = 3600,
) -> None:
    """Do what the open round asks of this hospital and leave: for cron, with the store alone."""
    from flows.compute import one_thread_each
    from flows.only_one import only_one
    from tasks.homes import enter_home
    from tasks.privacy import keep_errors
    from tasks.site_round import current_round, take_part

    one_thread_each()
    ws, own = enter_home(home)
    keep_errors(ws.root)
    with only_one(ws.root):
        number = current_round(ws)
        done = take_part(ws, number, own.name, float(wait), every_s=float(every))
    console.print(f"round {number}: {', '.join(done) if done else 'nothing to do'}")


@site_app.command("join")
def site_join(
    invitation: Annotated[Path, typer.Argument(help="The file the hub has sent.")],
    home: Home,
    data: Annotated[Path, typer.Option(help="Folder of this hospital's data set.")],
    layout: Annotated[str, typer.Option(help="How the data set is laid out: acdc.")] = "acdc",
) -> None:
    """Make this hospital's folder, prepare its data and tell the hub."""
    from tasks.homes import read_invitation
    from tasks.join import join

    invited = read_invitation(invitation)
    join(home, invited, data, layout)
    console.print(f"{invited.home.name} has joined; start its worker: cardiofed site work --home {home}")


def show_status(home: Path, number: int | None, watch: bool) -> None:
    """Print how a round stands.

    Args:
        home: folder of a machine that may read the ledger: the hub's.
        number: of the round; None for the one opened last.
        watch: print it anew every other second until interrupted.
    """
    from flows.status import status_table
    from tasks.homes import enter_home
    from tasks.site_round import current_round
    from tasks.standing import round_standing

    ws, _ = enter_home(home)
    if not watch:
        console.print(status_table(round_standing(ws, number or current_round(ws))))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(status_table(round_standing(ws, number or current_round(ws))), refresh=True)
            time.sleep(2)


def _work(home: Path) -> None:
    from infra.prefect_server import prefect_environment
    from infra.workers import become_worker
    from tasks.homes import enter_home

    ws, own = enter_home(home)
    os.environ |= prefect_environment(own.prefect_api_url, ws.root / "worker")
    from flows.deployments import pool_of  # Prefect reads its settings when it is imported
    from flows.settle import settle_runs

    pool = pool_of(own.name)
    left = settle_runs(pool, ws.root)
    if left:
        console.print(f"{left} run(s) that this machine had left under way are now Crashed: retry them")
    become_worker(home.absolute(), pool, own.prefect_api_url)
