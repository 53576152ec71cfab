"""``cardiofed site …``: a hospital's machine; and what its worker has in common with the hub's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.options import Layout

console = Console()
site_app = typer.Typer(no_args_is_help=True, help="A hospital's machine.")

Home = Annotated[Path, typer.Option(help="The machine's own folder.")]


@site_app.command("work")
def site_work(home: Home) -> None:
    """Be a hospital's Prefect worker until ended; it only ever connects outward."""
    work(home)


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
    from tasks.site_round import current_round, take_part, told_refusal
    from tasks.visits import leave_visit

    one_thread_each()
    ws, own = enter_home(home)
    keep_errors(ws.root)
    with only_one(ws.root):
        leave_visit(ws, own.name, float(every))
        number = current_round(ws)
        done = take_part(ws, number, own.name, float(wait), every_s=float(every))
        refused = told_refusal(ws, number, own.name)
    console.print(f"round {number}: {', '.join(done) if done else 'nothing to do'}")
    if refused:
        said = f"the hub did not admit this hospital's update: {refused}"
        console.print(said, markup=False, soft_wrap=True)


@site_app.command("join")
def site_join(
    invitation: Annotated[Path, typer.Argument(help="The file the hub has sent.")],
    home: Home,
    data: Annotated[Path, typer.Option(help="Folder of this hospital's data set.")],
    layout: Layout = "acdc",
) -> None:
    """Make this hospital's folder and keys, prepare its data and tell the hub; an invitation works once."""
    from flows.invitations import take_own_secret
    from tasks.homes import read_invitation
    from tasks.identity import described, read_identity
    from tasks.join import join

    invited = read_invitation(invitation)
    join(home, invited, data, layout)
    if take_own_secret(home, invited):
        console.print("it has a secret of the store of its own; the one in the invitation has ended")
    else:
        said = (
            "the store keeps the secret in the invitation: destroy that file, whoever reads it has its rights"
        )
        console.print(said, style="yellow", soft_wrap=True)
    keys = described(read_identity(home).public)
    console.print(f"{invited.home.name} has joined with the keys {keys}; tell them the hub by telephone")
    console.print(f"start its worker: cardiofed site work --home {home}", soft_wrap=True)


def work(home: Path) -> None:
    """Turn this process into the Prefect worker of a machine; does not return."""
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
