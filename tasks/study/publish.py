"""From finished cells to results: open the test, gather what may be shown, write tables and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from tasks.settings import Params
from tasks.study.by_weights import FULL_DTYPE_BYTES
from tasks.study.cell import Cell
from tasks.study.methods import METHODS
from tasks.study.plan import planned_cells
from tasks.study.run import build_trial
from tasks.study.test_set import open_test, record_opening
from tasks.study_plots import bytes_picture, method_picture, scenario_picture, weights_picture
from tasks.study_tables import method_table, scenario_table, write_study


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
    source, planned = Path(params.study.source), planned_cells(params)
    done = [cell for cell in planned if (root / "cells" / cell.name / "identity").exists()]
    cases = pd.concat([pd.read_csv(open_test(root, source, cell, params)) for cell in done])
    cases["owner"] = cases["owner"].fillna("")
    record_opening(root, done)
    cells = pd.DataFrame([_costs(root, source, cell, params) for cell in done])
    families = {name: method.family for name, method in METHODS.items()}
    full = _full_bytes(root, source, done[0], params)
    methods = method_table(cases, cells, "fedavg", full_bytes=full)
    scenarios = scenario_table(cases, cells)
    pictures = {
        "Methods": method_picture(methods, families),
        "Bytes": bytes_picture(methods, families),
        "Scenarios": scenario_picture(scenarios),
        "Weights": weights_picture(_weights(root, source, done, params)),
    }
    grid = pd.DataFrame([vars(cell) for cell in planned])
    files = write_study(out, cases, cells, full_bytes=full, planned=grid, pictures=pictures)
    return f"{len(done)} of {len(planned)} cells; {', '.join(file.name for file in files)} in {out}"


def _costs(root: Path, source: Path, cell: Cell, params: Params) -> dict[str, object]:
    folder = root / "cells" / cell.name
    rounds = pd.read_csv(folder / "rounds.csv")
    attackers = _attackers(root, source, cell, params)
    rated = rounds[rounds["weight"].notna()] if cell.method in ("rated", "paper") else rounds.iloc[:0]
    honest, others = (rated[rated["site"].isin(attackers) == bad]["weight"] for bad in (False, True))
    last = rounds[rounds["round"] == rounds["round"].max()]
    return vars(cell) | {
        "upload_bytes": rounds[rounds["upload_bytes"] > 0]["upload_bytes"].mean(),
        "download_bytes": rounds["download_bytes"].mean(),
        "seconds": json.loads((folder / "cost.json").read_bytes())["seconds"],
        "validation_dice": last["validation_dice"].mean(),
        "rounds": params.federation.rounds,
        "steps": params.training.steps,
        "weights_mean": honest.mean(),
        "weights_min": honest.min(),
        "attacker_weight": others.mean(),
    }


def _attackers(root: Path, source: Path, cell: Cell, params: Params) -> set[str]:
    trial, _ = build_trial(root, source, cell, params)
    return {site for site, member in trial.members.items() if member.attacker}


def _weights(root: Path, source: Path, cells: list[Cell], params: Params) -> pd.DataFrame:
    parts = []
    for cell in (c for c in cells if c.method == "rated"):
        rounds = pd.read_csv(root / "cells" / cell.name / "rounds.csv")
        attackers = _attackers(root, source, cell, params)
        parts.append(rounds.assign(**vars(cell), honest=~rounds["site"].isin(attackers)))
    return pd.concat(parts) if parts else pd.DataFrame()


def _full_bytes(root: Path, source: Path, cell: Cell, params: Params) -> int:
    trial, _ = build_trial(root, source, cell, params)
    return FULL_DTYPE_BYTES * sum(W.numel() for W in trial.base.values())
