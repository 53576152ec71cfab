"""The command line. Errors end in three lines and an exit code."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.audit_cli import audit_app
from flows.bench import bench
from flows.clinical_cli import clinical_app
from flows.data_cli import data_app
from flows.dependencies_cli import dependencies
from flows.doctor_cli import doctor
from flows.hub_cli import hub_app
from flows.keys_cli import keys_app
from flows.live_cli import add_live
from flows.options import Data, Layout, Port, Public, Root, Set, Sites, load, synthetic
from flows.policy_cli import policy
from flows.predict_cli import predict, site_compare, site_use
from flows.release_cli import release
from flows.round_cli import round_app
from flows.site_cli import site_app
from flows.study_cli import study_app
from model.errors import CardiofedError
from tasks.ledger import checked_name
from tasks.no_tracking import NO_TRACKING

os.environ |= NO_TRACKING  # Prefect and DVC, which commands import later, look when they are imported
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
stage_app = typer.Typer(no_args_is_help=True, help="One stage of the pipeline; `dvc repro` calls these.")
app.add_typer(data_app, name="data")
app.add_typer(stage_app, name="stage")
app.add_typer(audit_app, name="audit")
app.add_typer(study_app, name="study")
app.add_typer(bench, name="bench")
app.add_typer(clinical_app, name="clinical")
app.add_typer(hub_app, name="hub")
app.add_typer(keys_app, name="keys")
app.add_typer(round_app, name="round")
app.add_typer(site_app, name="site")
add_live(app)
app.command()(doctor)
app.command()(release)
app.command()(dependencies)
app.command()(predict)
hub_app.command("policy")(policy)
site_app.command("compare")(site_compare)
site_app.command("use")(site_use)
console = Console()


@app.callback()
def _main(debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False) -> None:
    """Federated LoRA adapters for cardiac MRI segmentation."""


@app.command()
def demo(
    run: Annotated[str, typer.Option(help="Name of the run; the same name continues it.")] = "demo",
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    data: Data = None,
    layout: Layout = "acdc",
    sites: Sites = "folder",
    public: Public = None,
    overrides: Set = None,
    keep: Annotated[bool, typer.Option(help="Leave the Prefect UI and the store running.")] = False,
    s3_port: Port = None,
    prefect_port: Port = None,
) -> None:
    """Run a whole federation on this machine, from the data to the report."""
    started = time.monotonic()
    root, params = runs / checked_name(run, "run"), load(overrides)  # before seconds go into imports
    from flows import stages
    from flows.demo import run_demo, show_result

    source = stages.Source(data or synthetic(), layout, sites)
    pretraining = None if public is None else stages.Source(public, layout, "group")
    addresses = run_demo(root, params, source, pretraining, keep, s3_port, prefect_port)
    show_result(root, time.monotonic() - started)
    if keep:
        console.print(f"Prefect UI  {addresses.ui_url}\nStore       {addresses.store_url}", soft_wrap=True)
        console.print(f"End both with: cardiofed down --run {run}", soft_wrap=True)


@app.command()
def results(
    names: Annotated[list[str], typer.Argument(help="Names of finished runs, one per seed.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
) -> None:
    """Print the test results of several seeds as markdown tables, with spread and paired intervals."""
    from tasks.across_seeds import seed_tables

    print(seed_tables([runs / checked_name(name, "run") for name in names]))


@stage_app.command("cohort")
def stage_cohort(
    root: Root,
    data: Data = None,
    layout: Layout = "acdc",
    sites: Sites = "folder",
    overrides: Set = None,
) -> None:
    """Import, form sites, split, cache slices."""
    from flows import stages

    stages.cohort(root, load(overrides), stages.Source(data or Path("data"), layout, sites), replace=True)


@stage_app.command("pretrain")
def stage_pretrain(root: Root, public: Public = None, layout: Layout = "acdc", overrides: Set = None) -> None:
    """Train the shared base."""
    from flows import stages

    stages.pretrain(root, load(overrides), None if public is None else stages.Source(public, layout, "group"))


@stage_app.command("federate")
def stage_federate(root: Root, overrides: Set = None) -> None:
    """Run the rounds against the run's own store and Prefect server."""
    from flows import stages
    from flows.servers import servers

    stages.enter(root, load(overrides), replace=True)
    with servers(root):
        stages.federate(root)


@stage_app.command("evaluate")
def stage_evaluate(root: Root, overrides: Set = None) -> None:
    """Train the comparisons, and evaluate every model on the test cases."""
    params = load(overrides)
    from flows import stages
    from flows.servers import servers

    stages.with_params(root, params)
    with servers(root):
        stages.evaluate(root)


@stage_app.command("report")
def stage_report(root: Root) -> None:
    """Write the page, the metrics and the plot tables."""
    from flows import stages

    console.print(f"report: {stages.report(root)}", soft_wrap=True)


def main() -> None:
    """Entry point: every error of ours ends in three lines and its exit code."""
    try:
        app()
    except CardiofedError as error:
        if "--debug" in sys.argv:
            raise
        Console(stderr=True).print(
            f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(error.exit_code)
