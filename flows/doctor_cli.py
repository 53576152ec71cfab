"""``cardiofed doctor``: what a machine can find out about itself before it takes part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tasks.doctor.finding import Finding

console = Console()
_STYLE = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def doctor(
    home: Annotated[Path, typer.Option(help="The machine's own folder: the hub's or a hospital's.")],
    quick: Annotated[bool, typer.Option("--quick", help="Do not read every image.")] = False,
) -> None:
    """Check this machine, its data, the store and Prefect; ends with code 1 when a check failed."""
    with console.status("examining"):
        findings = _examine(home, not quick)
    console.print(finding_table(findings))
    console.print(verdict(findings))
    if any(finding.level == "failed" for finding in findings):
        raise typer.Exit(1)


def finding_table(findings: Sequence[Finding]) -> Table:
    """A row per check; what to do stands below what was found."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("level", no_wrap=True)
    table.add_column("found", overflow="fold")
    for finding in findings:
        found = Group(Text(finding.said), *([Text(f"→ {finding.mend}", "cyan")] if finding.mend else []))
        table.add_row(finding.check, Text(finding.level, _STYLE[finding.level]), found)
    return table


def verdict(findings: Sequence[Finding]) -> Text:
    """The last line: ``all well``, or how many failed and how many warn."""
    count = Counter(finding.level for finding in findings)
    warnings = f"{count['warning']} warning{'s' if count['warning'] > 1 else ''}"
    if count["failed"]:
        return Text(f"{count['failed']} failed" + (f", {warnings}" if count["warning"] else ""), "bold red")
    return Text(warnings, "yellow") if count["warning"] else Text("all well", "green")


def _examine(folder: Path, every_image: bool) -> list[Finding]:
    from tasks.doctor.run import examine
    from tasks.homes import read_home

    findings = examine(folder, every_image)
    if findings[0].level == "failed":  # the folder itself
        return findings
    own = read_home(folder)
    return [*findings, *_of_prefect(own.name, own.prefect_api_url)]


def _of_prefect(name: str, api_url: str) -> list[Finding]:
    from tasks.doctor.finding import Finding

    if not api_url:
        return [Finding("Prefect", "ok", "no address: this machine works with the store alone")]
    from flows.deployments import pool_of
    from infra.prefect_doctor import examine_prefect

    return examine_prefect(api_url, pool_of(name))
