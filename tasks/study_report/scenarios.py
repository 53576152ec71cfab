"""The table of scenarios: what each costs the honest sites, beside the same method in the scenario's clean twin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from tasks.study_report.estimates import BOOTSTRAP, ROUNDING, Bootstrap, compare, seeds_of, spread
from tasks.study_report.rows import is_there, names_in, of_cell, patients_of, prepare

POINT = 0.010
"""One point of Dice."""


def scenario_table(
    cases: pd.DataFrame,
    cells: pd.DataFrame,
    methods: Sequence[str],
    beside: Mapping[str, str],
    *,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """One row per scenario and method: what honest sites lose.

    A difference pairs an honest site's patient with the same patient, under the same seeds, in the scenario's clean
    twin: by ``patient_key``, or else by site and pseudonym. Both suppose that the twin has the same sites and split.

    Args:
        cases: as for ``method_table``.
        cells: as for ``method_table``.
        methods: shown where they were run, in this order; the first is the rated one.
        beside: scenario → its clean twin; those that are not in it have none.
        bootstrap: how intervals are drawn.

    Returns:
        Index scenario, method, those without a twin first. ``beside``, the twin or nothing; ``dice``, ``dice_sd`` of
        honest sites; ``difference`` to the same method in the twin with ``low``, ``high``; ``to_rated``, the same to
        the rated method in the twin, or in the scenario itself where it has none, with ``to_rated_low``,
        ``to_rated_high``; ``attacker_weight`` and ``honest_mean`` (means over seeds), ``honest_min`` (over seeds);
        ``within_1_point``: ``difference ≥ −0.010`` of the rated method, not available for others and without pairs;
        ``seeds`` and ``patients`` of ``dice``; ``paired_seeds``, ``paired_patients`` and ``left_out`` (rows without
        a partner) of ``difference``.

    Raises:
        DataError: as for ``method_table``.
    """
    rows = prepare(cases, cells)
    scenarios = sorted(names_in("scenario", cells, cases), key=lambda name: name in beside)
    pairs = [(s, m) for s in scenarios for m in methods if is_there(rows, cells, m, s)]
    found = [_scenario_row(rows, cells, s, m, methods[0], beside.get(s, ""), bootstrap) for s, m in pairs]
    index = pd.MultiIndex.from_tuples(pairs, names=["scenario", "method"]) if pairs else None
    table = pd.DataFrame(found, index=index)
    return table.astype({"within_1_point": "boolean"}) if found else table


def _scenario_row(
    rows: pd.DataFrame,
    cells: pd.DataFrame,
    scenario: str,
    method: str,
    rated: str,
    twin: str,
    bootstrap: Bootstrap,
) -> dict[str, object]:
    patients = patients_of(rows, method, scenario)
    own = compare(rows, (method, scenario, "main"), (method, twin, "main"), bootstrap)
    best = compare(rows, (method, scenario, "main"), (rated, twin or scenario, "main"), bootstrap)
    costs = of_cell(cells, method, scenario)
    judged = method == rated and not math.isnan(own.mean)
    return {
        "beside": twin,
        **spread(patients, "dice"),
        **{"difference": own.mean, "low": own.low, "high": own.high},
        **{"to_rated": best.mean, "to_rated_low": best.low, "to_rated_high": best.high},
        "attacker_weight": float(costs["attacker_weight"].mean()),
        "honest_mean": float(costs["weights_mean"].mean()),
        "honest_min": float(costs["weights_min"].min()),
        "within_1_point": own.mean >= -POINT - ROUNDING if judged else pd.NA,
        "seeds": len(set(seeds_of(patients))),
        "patients": patients.index.get_level_values("unit").nunique(),
        "paired_seeds": own.seeds,
        "paired_patients": own.patients,
        "left_out": own.left_out,
    }
