"""``cardiofed predict``: a new patient in; masks, volumes, ejection fractions and doubts out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.options import Runs
from model.errors import ConfigError
from tasks.ledger import checked_name

if TYPE_CHECKING:
    from tasks.predict.choice import Choice, Comparison
    from tasks.predict.ready import ReadyModel
    from tasks.predict.result import Result
    from tasks.predict.shelf import Shelf

console = Console()

Site = Annotated[str | None, typer.Option(help="The hospital whose choice and personal adapter count.")]
Number = Annotated[
    int | None,
    typer.Option(
        "--round", min=1, max=9999, help="Of a closed round; the released one's when left out, else the last."
    ),
]
Run = Annotated[str, typer.Option(help="Name of the run whose models are used.")]
Home = Annotated[
    Path | None,
    typer.Option(help="This machine's own folder, in place of a run's; found when you are in it."),
]


def predict(
    source: Annotated[Path, typer.Argument(help="NIfTI file, 3-D or 4-D, or a folder with a DICOM cine.")],
    out: Annotated[Path, typer.Option(help="Folder for the results; it must not exist.")],
    site: Site = None,
    number: Number = None,
    run: Run = "demo",
    runs: Runs = Path("runs"),
    home: Home = None,
    model: Annotated[
        str | None, typer.Option(help="base, global or personal; the site's choice, else global.")
    ] = None,
    ed: Annotated[
        int | None, typer.Option(help="Phase of end-diastole, from 0; found when left out.")
    ] = None,
    es: Annotated[int | None, typer.Option(help="Phase of end-systole, from 0; found when left out.")] = None,
) -> None:
    """Segment a new patient; research use only."""
    shelf = shelf_of(runs, run, home, site)
    from tasks.predict.choose import model_for, other_model
    from tasks.predict.run import predict as run_predict

    chosen, why = model_for(shelf, model, number)
    result = run_predict(source, out, chosen, why, other_model(shelf, chosen), ed, es)
    _show(result, out)
    _say_if_passed_by(shelf, chosen)


def site_compare(
    site: Site = None,
    number: Number = None,
    run: Run = "demo",
    runs: Runs = Path("runs"),
    home: Home = None,
) -> None:
    """Compare base, global and personal model on this hospital's own test cases."""
    from tasks.predict.choice import choice_in_force, compare_models

    shelf = shelf_of(runs, run, home, site)
    found = compare_models(shelf, number)
    _show_comparison(found)
    where = "" if shelf.live else f" --run {run} --site {shelf.site}"
    console.print(f"Choose with: cardiofed site use {'|'.join(found.models)}{where}", soft_wrap=True)
    choice = choice_in_force(shelf)
    none = f"none is chosen: predict uses the global model{_of_round(found.round, _channel(shelf))}"
    console.print(_said(choice) if choice else none, soft_wrap=True)


def site_use(
    model: Annotated[str, typer.Argument(help="base, global or personal.")],
    site: Site = None,
    number: Number = None,
    run: Run = "demo",
    runs: Runs = Path("runs"),
    home: Home = None,
) -> None:
    """Have predict use this model at this hospital; the choice is written down with numbers and hashes."""
    from tasks.predict.choice import use_model
    from tasks.predict.choose import checked_model

    choice = use_model(shelf_of(runs, run, home, site), checked_model(model), number)
    _show_comparison(choice.numbers)
    console.print(_said(choice), soft_wrap=True)


def shelf_of(runs: Path, run: str, home: Path | None, site: str | None) -> Shelf:
    """Where the models of a run, of a live federation's machine, or of a home lie.

    Args:
        runs: folder of all runs.
        run: name of one.
        home: a machine's own folder, in place of a run's.
        site: whose personal adapter counts; None for a home's own.

    Returns:
        The way to the models.

    Raises:
        ConfigError: there is no such run, home or site.
    """
    from tasks.homes import HOME_FILE, HUB, enter_home
    from tasks.predict.shelf import NO_MODEL, Shelf
    from tasks.workspace import open_workspace

    root = runs / checked_name(run, "run")
    name = None if site is None else checked_name(site)
    if home is None and not root.exists() and Path(HOME_FILE).exists():  # an engineer in a machine's folder
        home = Path.cwd()
    if home is None and (root / HUB / HOME_FILE).exists():  # `cardiofed up`: a folder per machine
        home = root / HUB if name is None else root / "hospitals" / name
        if not home.exists():
            raise _unknown_site(name, [path.name for path in home.parent.glob("*")], root)
    if home is not None:
        ws, own = enter_home(home)
        if name not in (None, own.name):
            said = f"this folder is that of '{own.name}', not of '{name}'"
            raise ConfigError(said, str(home), "leave --site out, or name another folder")
        return Shelf(ws, "" if own.name == HUB else own.name, live=True)
    if not (root / "params.json").exists():
        raise ConfigError("there is no model yet: no such run", str(root), NO_MODEL)
    ws = open_workspace(root)
    if name is not None and not ws.data_home(name).exists():
        raise _unknown_site(name, [path.name for path in ws.cohort.glob("*")], root)
    return Shelf(ws, name or "", live=False)


def _unknown_site(name: str | None, known: list[str], where: Path) -> ConfigError:
    return ConfigError(f"'{name}' takes no part", str(where), f"use one of {', '.join(sorted(known))}")


def _channel(shelf: Shelf) -> str:
    from tasks.release.channel import CHANNEL

    return f"{CHANNEL} {shelf.released.release}" if shelf.released else ""


def _of_round(number: int | None, channel: str) -> str:
    """Such as ``, clinical v1.0.0 (round 2)``."""
    if number is None:
        return ""
    return f", {channel} (round {number})" if channel else f", round {number} (not released)"


def _say_if_passed_by(shelf: Shelf, used: ReadyModel) -> None:
    """A choice, or a round that was asked for, stays what it was when the channel goes on."""
    fact = shelf.released
    if fact and used.name != "base" and not used.release:
        said = f"the clinical channel holds another model: {fact.release}, of round {fact.round}"
        console.print(said, style="yellow", soft_wrap=True)


def _show(result: Result, out: Path) -> None:
    used = result.model
    whose = f" of {used.site}" if used.site else ""
    after = " as shipped" if used.name == "base" else _of_round(used.round, used.channel)
    console.print(
        f"model: {used.name}{whose}{after}; {used.chosen_by}; {used.model_sha256[:12]}", soft_wrap=True
    )
    if result.ed is not None:
        console.print(f"ED is phase {result.ed}, ES phase {result.es} ({result.phases_from})")
    table = Table("", "EDV, ml", "ESV, ml", "SV, ml", "EF, %", "mass, g")
    for name, side, mass in (("LV", result.lv, result.lv_mass_g), ("RV", result.rv, None)):
        numbers = (side.edv_ml, side.esv_ml, side.sv_ml, side.ef_percent, mass)
        table.add_row(name, *("" if value is None else f"{value:.1f}" for value in numbers))
    if result.ed is None:
        table = Table(*result.volumes_ml, title="ml, one phase")
        table.add_row(*(f"{curve[0]:.1f}" for curve in result.volumes_ml.values()))
    console.print(table)
    for flag in result.flags:
        where = " ".join(word for word in (flag.structure, flag.phase) if word)
        said = f"doubt: {flag.name} {where}: {flag.said}" if where else f"doubt: {flag.name}: {flag.said}"
        console.print(escape(said), style="yellow", soft_wrap=True)
    if not result.flags:
        console.print("no check raised a doubt")
    for said in result.not_checked:
        console.print(escape(f"not checked: {said}"), soft_wrap=True)
    console.print(f"written: {out}", soft_wrap=True)


def _show_comparison(found: Comparison) -> None:
    patients = "1 patient" if found.patients == 1 else f"{found.patients} patients"
    table = Table(
        "model", "Dice RV", "MYO", "LV", "HD95, mm", "|EF error|, %", title=f"{found.site}: {patients}"
    )
    for name, one in found.models.items():
        dice = (one.dice.get(structure) for structure in ("RV", "MYO", "LV"))
        numbers = [*((value, 3) for value in dice), (one.hd95_mm, 1), (one.lv_ef_error_percent, 1)]
        table.add_row(name, *("" if value is None else f"{value:.{digits}f}" for value, digits in numbers))
    console.print(table)
    console.print("Whoever chooses by these cases has used them up: they test the chosen model no more.")


def _said(choice: Choice) -> str:
    used = choice.personal_sha256 or choice.model_sha256
    when = choice.chosen.isoformat(timespec="minutes")
    return f"predict uses the {choice.model} model of round {choice.round} ({used[:12]}), chosen {when}"
