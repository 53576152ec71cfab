"""``cardiofed up``, ``status`` and ``down``: a whole federation on one machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from flows.options import Data, HubHome, Layout, Number, Port, Run, Runs, Set, Sites, hub_of, load, synthetic
from tasks.ledger import checked_name

console = Console()


def add_live(app: typer.Typer) -> None:
    """Give an application the three commands."""
    for command in (up, status, down):
        app.command()(command)


def up(
    run: Run = "live",
    runs: Runs = Path("runs"),
    data: Data = None,
    layout: Layout = "acdc",
    sites: Sites = "folder",
    overrides: Set = None,
    every: Annotated[
        str | None,
        typer.Option(help="Cron schedule of rounds, UTC; empty for none, prefect.yaml's when left out."),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            help="Prefect's database, such as postgresql+asyncpg://…; empty for SQLite; as before when left out."
        ),
    ] = None,
    s3_port: Port = None,
    prefect_port: Port = None,
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls/--no-tls", help="Speak TLS, with a CA of this machine's own; as before when left out."
        ),
    ] = None,
) -> None:
    """Bring a federation up on this machine: store, Prefect, a worker for the hub and one per hospital."""
    root, params = runs / checked_name(run, "run"), load(overrides)
    from flows.live import bring_up
    from flows.stages import Source

    source = Source(data or synthetic(), layout, sites)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    bring_up(root, params, source, say, every, database_url, s3_port, prefect_port, tls)
    say(f"Watch it with: cardiofed status --run {run} --watch\nEnd it with:   cardiofed down --run {run}")


def status(
    run: Run = "live",
    runs: Runs = Path("runs"),
    home: HubHome = None,
    number: Number = None,
    watch: Annotated[bool, typer.Option(help="Keep showing it.")] = False,
) -> None:
    """Show how a round stands at every site, from the ledger."""
    _show_status(hub_of(runs, run, home), number, watch)


def down(run: Run = "live", runs: Runs = Path("runs")) -> None:
    """End what `cardiofed up` or `cardiofed demo --keep` left running; nothing else."""
    from infra.process import stop_all
    from infra.workers import end_strayed_runs

    root = runs / checked_name(run, "run")
    ended = stop_all(root)
    if strayed := end_strayed_runs(root):
        ended.append(f"{strayed} run{'s' if strayed > 1 else ''} whose worker was gone")
    console.print(f"ended: {', '.join(ended)}" if ended else "nothing was running")


def _show_status(home: Path, number: int | None, watch: bool) -> None:
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
