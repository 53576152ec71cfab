"""From finished cells to results: open the test, gather what may be shown, write tables and pictures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from safetensors.torch import load

from model.errors import ConfigError
from tasks.pretrain import need_base
from tasks.settings import Params
from tasks.study.by_weights import FULL_DTYPE_BYTES
from tasks.study.cell import Cell
from tasks.study.choices import ALL
from tasks.study.merging import RATES
from tasks.study.methods import METHODS
from tasks.study.plan import choice_cells, planned_cells
from tasks.study.run import is_finished
from tasks.study.scenarios import SCENARIOS
from tasks.study.test_set import open_test, record_opening
from tasks.study_report.choices import ROUND_COLUMNS, choice_table
from tasks.study_report.costs import cell_costs
from tasks.study_report.picture_bytes import bytes_picture
from tasks.study_report.picture_methods import method_picture
from tasks.study_report.picture_scenarios import scenario_picture
from tasks.study_report.picture_weights import weights_picture
from tasks.study_report.roles import Roles
from tasks.study_report.tables import Tables, make_tables
from tasks.study_report.write import write_study


def publish(root: Path, params: Params, out: Path) -> str:
    """Evaluate the finished cells on the test patients and write the results.

    Args:
        root: folder of the study.
        params: the study's settings.
        out: folder of tables and pictures; aggregates only, nothing about a single patient.

    Returns:
        What was written, in a line.

    Raises:
        ConfigError: no cell is finished.
    """
    planned = planned_cells(params)
    done = _finished(root, planned, params)
    if not done:
        what = f"none of the study's {len(planned)} cells is finished"
        raise ConfigError(
            what, str(root / "cells"), "train some with cardiofed study run, or name another root"
        )
    full = _full_bytes(root)
    cases = _open_tests(root, done, params)
    cells = pd.DataFrame([_costs(root, cell, params) for cell in done])
    grid = pd.DataFrame([vars(cell) for cell in planned])
    tables = make_tables(cases, cells, study_roles(params), full_bytes=full, planned=grid)
    choices = _choices(root, params, full)
    files = write_study(out, tables, choices, _pictures(tables, _weights(root, done)))
    return f"{len(done)} of {len(planned)} cells; {', '.join(file.name for file in files)} in {out}"


def attackers_of(cell: Cell, rounds: pd.DataFrame) -> set[str]:
    """Sites of a cell that falsify their data or their update.

    One that only rates badly (a liar, biased masks, few slices), is absent or late is honest: its patients count.

    Args:
        cell: the scenario says who attacks, by places in the alphabet.
        rounds: the cell's rounds; every site has a row in each.

    Returns:
        Their names; empty where nobody attacks.
    """
    sites = sorted(set(rounds["site"]))
    return {sites[place] for place in SCENARIOS[cell.scenario].turned(cell.split_seed).attackers}


def study_roles(params: Params) -> Roles:
    """What the scenarios are in the report.

    Args:
        params: name the rivals.

    Returns:
        The roles; a scenario's clean twin is the one beside it, where both have the same sites and the same images.
    """
    seen = {name: (s.partition, s.scanners) for name, s in SCENARIOS.items()}
    beside = {
        name: s.beside for name, s in SCENARIOS.items() if name != s.beside and seen[name] == seen[s.beside]
    }
    return Roles(
        rivals=params.study.rivals,
        attacks=tuple(name for name, s in SCENARIOS.items() if s.attack),
        rater_faults=tuple(name for name, s in SCENARIOS.items() if s.rater_fault and not s.attack),
        beside=beside,
    )


def _finished(root: Path, cells: list[Cell], params: Params) -> list[Cell]:
    """Those trained under these very settings, this code and this data; others are to be trained again."""
    source = Path(params.study.source)
    return [cell for cell in cells if is_finished(root, source, cell, params)]


def _open_tests(root: Path, cells: list[Cell], params: Params) -> pd.DataFrame:
    source, text = Path(params.study.source), dict.fromkeys(("owner", "site", "patient_key"), str)
    try:
        tables = [open_test(root, source, cell, params) for cell in cells]
    finally:
        record_opening(root, cells)
    return pd.concat([pd.read_csv(table, dtype=text).fillna({"owner": ""}) for table in tables])


def _rounds(root: Path, cell: Cell) -> pd.DataFrame:
    return pd.read_csv(root / "cells" / cell.name / "rounds.csv", dtype={"site": str}).assign(**vars(cell))


def _costs(root: Path, cell: Cell, params: Params) -> dict[str, object]:
    rounds = _rounds(root, cell)
    return {
        **vars(cell),
        **cell_costs(rounds, attackers_of(cell, rounds), METHODS[cell.method].merge in RATES),
        "rounds": params.federation.rounds,
        "steps": params.training.steps,
    }


def _weights(root: Path, cells: list[Cell]) -> pd.DataFrame:
    parts = [(cell, _rounds(root, cell)) for cell in cells if cell.method == "rated"]
    marked = [
        rounds.assign(honest=~rounds["site"].isin(attackers_of(cell, rounds))) for cell, rounds in parts
    ]
    return pd.concat(marked) if marked else pd.DataFrame()


def _choices(root: Path, params: Params, full_bytes: int) -> pd.DataFrame:
    """Validation alone: read from rounds.csv, no model is touched."""
    chosen = _finished(root, choice_cells(params), params)
    defaults = {cell.method: default for cell in chosen if (default := ALL[cell.method].default)}
    parts = [_rounds(root, cell) for cell in chosen]
    rounds = pd.concat(parts) if parts else pd.DataFrame(columns=ROUND_COLUMNS)
    return choice_table(rounds, defaults, full_bytes=full_bytes)


def _pictures(tables: Tables, weights: pd.DataFrame) -> dict[str, bytes]:
    families = {name: method.family for name, method in METHODS.items()}
    return {
        "Methods": method_picture(tables.methods, families, tables.incomplete),
        "Bytes": bytes_picture(tables.methods, families, tables.incomplete),
        "Scenarios": scenario_picture(tables.scenarios),
        "Weights": weights_picture(weights),
    }


def _full_bytes(root: Path) -> int:
    base = need_base(root / "base")
    weights = load((root / "base" / f"{base.sha256}.safetensors").read_bytes())
    return FULL_DTYPE_BYTES * sum(W.numel() for W in weights.values())
