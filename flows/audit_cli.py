"""``cardiofed audit …``: the log of what was done: shown, copied, and verified without trusting the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from tasks.audit.source import Source

console = Console()
audit_app = typer.Typer(no_args_is_help=True, help="The log of what was done, and what has left a hospital.")

Place = Annotated[
    str | None, typer.Argument(help="A copy of the ledger, or s3://BUCKET; the machine's own when left out.")
]
Home = Annotated[Path | None, typer.Option(help="The folder of a machine, for its store and credentials.")]


@audit_app.command("verify")
def audit_verify(
    place: Place = None,
    home: Home = None,
    hub_key: Annotated[
        str | None, typer.Option(help="The hub's public key, ed25519:…, from a safe place.")
    ] = None,
) -> None:
    """Check that nothing in the log is missing, changed, reordered or added, and that it tells the truth."""
    from model.errors import AuditError
    from tasks.audit.verify import verify_log

    found = verify_log(_source(place, home), hub_key)
    for note in found.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for fault in found.faults:
        console.print(str(fault), markup=False, soft_wrap=True)
    if found.faults:
        first, more = found.faults[0], len(found.faults) - 1
        also = f", and {more} more" if more else ""
        mend = "ask the hub to explain it; compare with the copies of other hospitals"
        raise AuditError(f"{first}{also}", place or str(home), mend)
    console.print(
        f"{found.entries} entries are whole; {found.objects} objects are what they tell of; "
        f"{found.seals} records are their authors' word, {found.positions} of them saw the log and signed it; "
        f"the weights of {found.rounds} rounds are what the ratings give",
        soft_wrap=True,
    )


@audit_app.command("show")
def audit_show(
    place: Place = None,
    home: Home = None,
    site: Annotated[str | None, typer.Option(help="Everything that ever left this hospital.")] = None,
    number: Annotated[int | None, typer.Option("--round", help="Of this round alone.")] = None,
) -> None:
    """Print the log, or everything that ever left a hospital, with sizes."""
    from tasks.audit.show import departures, read_entries, said, total_bytes

    entries = read_entries(_source(place, home))
    if site is not None:
        entries = departures(entries, site)
    if number is not None:
        entries = [entry for entry in entries if entry.round == number]
    columns = ("what", "bytes", "sha256") if site is not None else ("site", "what it says")
    table = Table("entry", "time, UTC", "fact", "round", *columns)
    for e in entries:
        left = (e.object or "", str(e.n_bytes), (e.sha256 or "renewed")[:16])
        shown = left if site is not None else (e.site or "", said(e))
        when, of_round = f"{e.time:%Y-%m-%d %H:%M:%S}", "" if e.round is None else str(e.round)
        table.add_row(str(e.n), when, e.kind, of_round, *map(escape, shown))
    console.print(table)
    if site is not None:
        console.print(f"{len(entries)} objects, {total_bytes(entries)} bytes have left {site}")


@audit_app.command("fetch")
def audit_fetch(
    out: Annotated[Path, typer.Argument(help="Folder for the copy.")],
    home: Annotated[Path, typer.Option(help="The folder of the machine that reads.")],
) -> None:
    """Copy what this machine may read of the ledger, to verify it anywhere."""
    from tasks.audit.fetch import fetch_ledger
    from tasks.homes import enter_home

    ws, own = enter_home(home)
    objects, n_bytes = fetch_ledger(ws.store, own.name, out)
    console.print(f"{objects} objects, {n_bytes / 1000:.0f} kB in {out}", soft_wrap=True)


def _source(place: str | None, home: Path | None) -> Source:
    from model.errors import ConfigError
    from tasks.audit.source import Bucket, open_source
    from tasks.homes import enter_home

    ws = enter_home(home)[0] if home is not None else None
    if place is not None:
        return open_source(place)
    if ws is None:
        raise ConfigError("nothing was named", "audit", "name a copy of the ledger, s3://BUCKET or --home")
    return Bucket(ws.store)
