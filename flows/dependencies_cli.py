"""``cardiofed dependencies``: what is installed, under which licence, and what is known against it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tasks.licences import Dependency

console = Console()
_STYLE = {"permissive": "", "weak copyleft": "yellow", "copyleft": "bold red", "unknown": "bold red"}


def dependencies(
    constraints: Annotated[Path, typer.Option(help="The pins.")] = Path("constraints.txt"),
    vulnerabilities: Annotated[
        bool,
        typer.Option(
            "--vulnerabilities", help="Ask a public database what is known against the pins instead."
        ),
    ] = False,
) -> None:
    """List every pinned or installed package with version and licence; ends with code 1 when one is amiss."""
    if vulnerabilities:
        _show_vulnerabilities(constraints)
        return
    from tasks.licences import faults, read_dependencies

    found = read_dependencies(constraints)
    console.print(_table(found))
    for line in faults(found):
        console.print(Text(line, "yellow"), soft_wrap=True)
    count = Counter(one.kind for one in found if one.installed)
    said = ", ".join(f"{n} {kind}" for kind, n in count.most_common())
    console.print(
        f"{len(found)} packages: {said}; {sum(not one.installed for one in found)} not installed here"
    )
    if any(one.differs for one in found):
        raise typer.Exit(1)


def _table(found: tuple[Dependency, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("package", no_wrap=True)
    table.add_column("version", no_wrap=True)
    table.add_column("licence, as the package names it", overflow="fold")
    table.add_column("kind", no_wrap=True)
    for one in found:
        kind = Text(one.kind, _STYLE[one.kind]) if one.installed else Text("not installed", "dim")
        table.add_row(one.name, one.installed or one.pinned, Text(one.licence), kind)
    return table


def _show_vulnerabilities(constraints: Path) -> None:
    from infra.vulnerabilities import ask_vulnerabilities
    from tasks.licences import read_pins

    count = len(read_pins(constraints))
    with console.status("asking"):
        known = ask_vulnerabilities(constraints)
    for one in known:
        mended = ", ".join(one.mended_in) or "no version yet"
        console.print(f"{one.name} {one.version}: {one.id}, mended in {mended}", soft_wrap=True)
    console.print(f"{len(known)} known vulnerabilities in {count} pins")
    if known:
        raise typer.Exit(1)
