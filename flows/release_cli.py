"""``cardiofed release``: a round's model to the clinical channel, back to the one before, or what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.options import HubHome, Run, Runs
from model.errors import ConfigError
from tasks.ledger import checked_name

if TYPE_CHECKING:
    from tasks.release.records import Released
    from tasks.workspace import Workspace

console = Console()


def release(
    run: Run = "demo",
    runs: Runs = Path("runs"),
    home: HubHome = None,
    number: Annotated[
        int | None, typer.Option("--round", min=1, max=9999, help="Whose model is to be released.")
    ] = None,
    approved_by: Annotated[str, typer.Option(help="Who takes responsibility; stands in the card.")] = "",
    cohort: Annotated[
        Path | None,
        typer.Option(
            help="Prepared sites whose validation patients decide; left out: the run's own, or the hospitals' word."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the card (markdown) to this file.")] = None,
    rollback: Annotated[bool, typer.Option(help="Return to the release before.")] = False,
    show: Annotated[bool, typer.Option(help="Say what is released, and what was.")] = False,
) -> None:
    """Release a round's model if no structure, pathology or vendor is served worse by it; or roll back, or show."""
    _one_wish(number, rollback, show)
    root = home or runs / checked_name(run, "run")
    if show:
        _show(_workspace(root, home), out)
        return
    if not approved_by.strip() and not rollback:
        mend = "name the person who approves it"
        raise ConfigError("a release needs the name of who approves it", "--approved-by", mend)
    with _store_of(root, home) as ws:
        from tasks.release.promote import release_round, roll_back
        from tasks.settings import load_environment

        env = load_environment()
        if number is None:
            fact = roll_back(ws, approved_by.strip() or "not named", env)
        else:
            with console.status(f"comparing round {number} with what is released"):
                fact = release_round(ws, number, approved_by.strip(), env, cohort)
        _say(fact, ws)
        _write_card(ws, fact.release, out)


def _one_wish(number: int | None, rollback: bool, show: bool) -> None:
    if [number is not None, rollback, show].count(True) != 1:
        raise ConfigError(
            "say what to do", "cardiofed release", "give one of --round N, --rollback and --show"
        )


def _workspace(root: Path, home: Path | None) -> Workspace:
    from tasks.homes import enter_home
    from tasks.workspace import open_workspace

    return enter_home(root)[0] if home else open_workspace(root)


@contextmanager
def _store_of(root: Path, home: Path | None) -> Iterator[Workspace]:
    """The run with its store answering: the hub's, or the run's own for as long as this takes."""
    ws = _workspace(root, home)
    if home:
        yield ws
        return
    from flows.servers import store_alone

    with store_alone(root):
        yield ws


def _say(fact: Released, ws: Workspace) -> None:
    from tasks.release.channel import read_card
    from tasks.release.judge import undecided_findings

    verb = "is released" if fact.action == "release" else "is back"
    model = f"{fact.release} (round {fact.round}, model {fact.model_sha256[:12]})"
    console.print(f"{model} {verb}, compared with {fact.compared_with}", soft_wrap=True, markup=False)
    places = sorted({f.place for f in undecided_findings(read_card(ws.versions, fact.release)[0].findings)})
    if places:
        said = f"not decidable, too few patients; stands in the card and does not block: {'; '.join(places)}"
        console.print(said, style="yellow", soft_wrap=True, markup=False)


def _show(ws: Workspace, out: Path | None) -> None:
    from tasks.release.channel import history, in_force

    entries = history(ws.versions)
    standing = in_force(entries)
    if not standing:
        console.print("nothing is released")
        return
    table = Table(
        "#", "what", "release", "round", "model", "approved by", "when, UTC", title="clinical channel"
    )
    for entry in entries:
        fact = entry.fact
        when = f"{fact.at:%Y-%m-%d %H:%M}"
        row = [str(fact.number), fact.action, fact.release, str(fact.round), fact.model_sha256[:12]]
        table.add_row(*row, escape(fact.approved_by), when)
    console.print(table)
    _say(standing[-1].fact, ws)
    _write_card(ws, standing[-1].fact.release, out)


def _write_card(ws: Workspace, release: str, out: Path | None) -> None:
    from tasks.files import write_atomic
    from tasks.release.channel import read_card
    from tasks.release.markdown import card_markdown

    if out:
        write_atomic(out, card_markdown(read_card(ws.versions, release)[0]).encode())
        console.print(f"card: {out}", soft_wrap=True)
