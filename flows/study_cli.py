"""``cardiofed study …``: the commands that `dvc repro study` calls, and one that runs all cells on all cores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasks.settings import Params, load_params

study_app = typer.Typer(no_args_is_help=True, help="Methods × scenarios × seeds, on data in ACDC's layout.")

Root = Annotated[Path, typer.Option(help="Folder of the study.")]
Out = Annotated[Path, typer.Option(help="Folder of tables and pictures.")]
DEFAULT = Path("runs/study")


@study_app.command("base")
def base(root: Root = DEFAULT) -> None:
    """Train the base that every cell starts from."""
    from flows.compute import one_thread_each
    from tasks.pretrain import pretrain_base

    one_thread_each()
    pretrain_base(root / "base", _params())


@study_app.command("cell")
def cell(method: str, scenario: str, seed: str, root: Root = DEFAULT) -> None:
    """Train one cell, unless it is there; SEED is SPLIT-TRAINING, such as 1-1."""
    from flows.compute import one_thread_each
    from tasks.study.cell import Cell
    from tasks.study.plan import checked_cell, parse_seed
    from tasks.study.run import run_cell

    one_thread_each()
    params = _params()
    wanted = checked_cell(Cell(method, scenario, *parse_seed(seed)))
    run_cell(root, Path(params.study.source), wanted, params)


@study_app.command("run")
def run(root: Root = DEFAULT) -> None:
    """Train all cells that are missing, on all cores, watched in the Prefect UI."""
    from flows.compute import one_thread_each
    from flows.servers import servers
    from tasks.pretrain import pretrain_base

    one_thread_each()
    pretrain_base(root / "base", _params())
    with servers(root) as up:
        from flows.study import study  # Prefect reads the server's address when it is imported

        print(f"Prefect UI  {up.ui_url}")
        study(str(root))


@study_app.command("report")
def report(root: Root = DEFAULT, out: Out = Path("docs/results/study")) -> None:
    """Open the test for the finished cells, and write tables and pictures."""
    from flows.compute import one_thread_each
    from tasks.study.publish import publish

    one_thread_each()
    print(publish(root, _params(), out))


def _params() -> Params:
    from tasks.study.plan import study_params

    return study_params(load_params(Path("params.yaml")))
