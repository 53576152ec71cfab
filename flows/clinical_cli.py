"""``cardiofed clinical …``: what measurements and doubts are worth, measured on a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.options import Run, Runs
from tasks.ledger import checked_name

clinical_app = typer.Typer(no_args_is_help=True, help="What measurements and doubts are worth.")
console = Console(stderr=True)

Out = Annotated[Path | None, typer.Option(help="Also write every row to this file, CSV.")]


@clinical_app.command("volumes")
def clinical_volumes(
    run: Run = "demo",
    runs: Runs = Path("runs"),
    seeds: Annotated[int, typer.Option(min=1, help="Draws of 20 fresh phantoms each.")] = 3,
    out: Out = None,
) -> None:
    """Volumes and EF of fresh phantoms against their analytic truth: by true masks, and by a run's models."""
    from tasks.clinical.phantom_truth import phantom_truth, truth_table
    from tasks.files import write_atomic
    from tasks.workspace import open_workspace

    with console.status("measuring phantoms") as status:
        rows = phantom_truth(
            open_workspace(runs / checked_name(run, "run")), range(1, seeds + 1), status.update
        )
    if out:
        write_atomic(out, rows.to_csv(index=False).encode())
    print(truth_table(rows))


@clinical_app.command("flags")
def clinical_flags(
    run: Annotated[
        list[str] | None, typer.Option(help="Run whose validation cases count; may be given again.")
    ] = None,
    runs: Runs = Path("runs"),
    out: Out = None,
) -> None:
    """How often the limits of confidence and disagreement fire on validation cases, and how good those are."""
    import pandas as pd

    from tasks.clinical.flag_limits import CHECKS, best_limit, limit_markdown, limit_table, structures_of
    from tasks.files import write_atomic
    from tasks.workspace import open_workspace

    names = [checked_name(name, "run") for name in run or ["demo"]]
    with console.status("segmenting") as status:
        rows = pd.concat(
            [structures_of(name, open_workspace(runs / name), status.update) for name in names],
            ignore_index=True,
        )
    if out:
        write_atomic(out, rows.to_csv(index=False).encode())
    for column, in_force in CHECKS.items():
        table = limit_table(rows, column)
        print(
            f"{column}: in force {in_force:.2f}, by the rule, these cases ask for {best_limit(table):.2f}\n"
        )
        print(f"{limit_markdown(table, in_force)}\n")
