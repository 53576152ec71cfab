"""What several commands share: their options, the settings and the synthetic cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tasks.ledger import checked_name
from tasks.settings import Params, load_params

Root = Annotated[Path, typer.Option(help="Folder of the run.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting, e.g. federation.rounds=10.")
]
Data = Annotated[
    Path | None, typer.Option(help="Folder of the data set; the synthetic cohort when left out.")
]
Layout = Annotated[str, typer.Option(help="acdc, imported, mnms, nifti, dicom or sunnybrook: docs/data.md.")]
Sites = Annotated[
    str, typer.Option(help="How sites are formed: folder, group, vendor, centre, or csv:FILE:COLUMN.")
]
Public = Annotated[Path | None, typer.Option(help="Pretrain on this public cohort instead of phantoms.")]
Port = Annotated[int | None, typer.Option(help="A free one is taken when left out.")]
Run = Annotated[str, typer.Option(help="Name of the run; the same name continues it.")]
Runs = Annotated[Path, typer.Option(help="Folder of all runs.")]
HubHome = Annotated[Path | None, typer.Option("--home", help="The hub's folder, in place of a run's.")]
Number = Annotated[
    int | None,
    typer.Option("--round", min=1, max=9999, help="Of a round; the one opened last when left out."),
]


def load(overrides: list[str] | None) -> Params:
    """The settings of the project's folder with overrides laid over."""
    return load_params(Path("params.yaml"), tuple(overrides or ()))


def synthetic() -> Path:
    """The synthetic cohort in data/, made when it is missing."""
    from tasks.cohort import write_cohort

    folder, console = Path("data"), Console()
    if not folder.exists():
        with console.status("writing the synthetic cohort to data/"):
            write_cohort(folder)
        console.print("wrote the synthetic cohort to data/")
    return folder


def hub_of(runs: Path, run: str, home: Path | None) -> Path:
    """The hub's folder: the one named, or that of a federation on this machine."""
    return home or runs / checked_name(run, "run") / "hub"
