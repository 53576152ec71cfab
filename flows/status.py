"""How a round stands, for the terminal and as a Prefect artifact: both from the ledger."""

from __future__ import annotations

from prefect.artifacts import create_table_artifact
from rich.box import SIMPLE_HEAD
from rich.markup import escape
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
    """A round for the terminal: a row per site, a mark per step; fits 80 columns."""
    style = _STYLE.get(standing.word, "red")
    title = f"round {standing.number}: [bold {style}]{standing.word}[/]"
    notes = [f"{site.site}: {site.note}" for site in standing.sites if site.note]
    caption = escape("\n".join(filter(None, (standing.detail, *notes, f"steps: {', '.join(STEPS)}"))))
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=SIMPLE_HEAD)
    for name in ("site", "reached", "steps", "doing", "last sign"):
        table.add_column(name, no_wrap=True)
    for name in ("up", "down"):
        table.add_column(name, justify="right", no_wrap=True)
    for site in standing.sites:
        marks = "".join("●" if step in site.steps else "·" for step in STEPS)
        table.add_row(site.site, _reached(site), marks, *_told(site))
    return table


def publish_status(ws: Workspace, number: int) -> RoundStanding:
    """Show the round's status beside its run in the UI; the newest of a round takes the place of older ones."""
    standing = round_standing(ws, number)
    rows = [
        {"site": site.site, "reached": _reached(site)}
        | dict(zip(("doing", "last sign", "up", "down"), _told(site), strict=True))
        | {"note": site.note, "times, UTC": _all_times(site)}
        for site in standing.sites
    ]
    said = f"round {number}: {standing.word}. {standing.detail}"
    create_table_artifact(rows, key=f"status-{number:04d}", description=said)
    return standing


def _reached(site: SiteStanding) -> str:
    at = site.times.get(site.steps[-1])
    return f"{site.steps[-1]} {at:%H:%M}" if at else site.steps[-1]


def _all_times(site: SiteStanding) -> str:
    return ", ".join(f"{step} {at:%H:%M:%S}" for step, at in site.times.items())


def _told(site: SiteStanding) -> tuple[str, str, str, str]:
    return site.doing, _ago(site.contact_s), _kilobytes(site.sent_bytes), _kilobytes(site.received_bytes)


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 2:
        return f"{seconds:.0f} s ago"
    return f"{minutes:.0f} min ago" if hours < 2 else f"{hours:.0f} h ago"


def _kilobytes(count: int) -> str:
    if count >= 1_000_000:
        return f"{count / 1e6:.1f} MB"
    return f"{count / 1000:.0f} kB" if count else "–"
