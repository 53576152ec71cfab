"""How a round stands, for the terminal and as a Prefect artifact: both from the ledger."""

from __future__ import annotations

from prefect.artifacts import create_table_artifact
from rich.table import Table

from tasks.standing import STEPS, RoundStanding, SiteStanding, round_standing
from tasks.workspace import Workspace

_STYLE = {
    "complete": "green",
    "waiting": "cyan",
    "working": "cyan",
    "degraded": "yellow",
    "stepped back": "yellow",
}


def status_table(standing: RoundStanding) -> Table:
    """A round for the terminal: a row per site, a column per step."""
    style = _STYLE.get(standing.word, "red")
    title = f"round {standing.number}: [{style}]{standing.word}[/]"
    table = Table(title=title, caption=standing.detail or None, title_justify="left", caption_justify="left")
    table.add_column("site")
    for step in STEPS:
        table.add_column(step, justify="center")
    for name in ("doing", "last sign", "up", "down", "note"):
        table.add_column(name, overflow="fold")
    for site in standing.sites:
        marks = ["●" if step in site.steps else "·" for step in STEPS]
        table.add_row(site.site, *marks, *_told(site), site.note)
    return table


def publish_status(ws: Workspace, number: int) -> None:
    """Show the round's status beside its run in the UI; the newest of a round takes the place of older ones."""
    standing = round_standing(ws, number)
    rows = [
        {"site": site.site, "reached": site.steps[-1]}
        | dict(zip(("doing", "last sign", "up", "down"), _told(site), strict=True))
        | {"note": site.note}
        for site in standing.sites
    ]
    said = f"round {number}: {standing.word}. {standing.detail}"
    create_table_artifact(rows, key=f"status-{number:04d}", description=said)


def _told(site: SiteStanding) -> tuple[str, str, str, str]:
    sign = "never" if site.contact_s is None else f"{site.contact_s:.0f} s ago"
    return site.doing, sign, f"{site.sent_bytes / 1000:.0f} kB", f"{site.received_bytes / 1000:.0f} kB"
