"""``cardiofed data …``: the synthetic cohort, what a DICOM export holds, and a site's de-identified import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.options import synthetic

data_app = typer.Typer(no_args_is_help=True, help="Data sets: the synthetic cohort, imports, DICOM exports.")
console = Console()


@data_app.command("make")
def data_make() -> None:
    """Write the synthetic cohort to data/, unless it is there."""
    synthetic()


@data_app.command("verify")
def data_verify() -> None:
    """Say whether data/ is, byte for byte, what data.dvc pins; makes it first when it is missing."""
    from tasks.verify import verify_data

    console.print(verify_data(synthetic(), Path("data.dvc")), soft_wrap=True)


@data_app.command("inspect")
def data_inspect(folder: Annotated[Path, typer.Argument(help="A DICOM export.")]) -> None:
    """Say of every DICOM series below a folder whether it is the short-axis cine, or why not."""
    from tasks.dicom.inspect import inspect

    table = Table("series", "modality", "images", "slices", "phases", "taken, or why not")
    for row in inspect(folder):
        counts = (str(count) for count in (row.images, row.slices, row.phases))
        table.add_row(escape(row.description), escape(row.modality), *counts, escape(row.said))
    console.print(table)


@data_app.command("import")
def data_import(
    kind: Annotated[str, typer.Argument(help="acdc, mnms, nifti, dicom or sunnybrook.")],
    source: Annotated[Path, typer.Argument(help="The archive; it is read and stays as it is.")],
    site: Annotated[str, typer.Option(help="Name of the site.")],
    out: Annotated[Path, typer.Option(help="New folder for the de-identified copy.")],
    private: Annotated[
        Path | None,
        typer.Option(help="Where key and map of the pseudonyms stay; OUT-private when left out."),
    ] = None,
) -> None:
    """Make a site's de-identified copy of an archive: one layout, one label order, keyed hashes for names."""
    from tasks.importers.describe import describe
    from tasks.importers.kinds import importer_of
    from tasks.importers.write import import_site

    with console.status("importing") as status:
        done = import_site(importer_of(kind), source, site, out, private, status.update)
    console.print(describe(out), markup=False, soft_wrap=True, highlight=False)
    for patient, risks in sorted(done.risks.items()):
        for risk in risks:
            console.print(f"look at {patient}: {risk}", style="yellow", markup=False, soft_wrap=True)
    console.print(
        f"{done.patients} patients in {out}; key and map, in {done.private}, stay at the site", soft_wrap=True
    )


@data_app.command("describe")
def data_describe(folder: Annotated[Path, typer.Argument(help="What `data import` has written.")]) -> None:
    """Print what was read, case by case: grid, plane, phases, labels, as a markdown table."""
    from tasks.importers.describe import describe

    print(describe(folder))
