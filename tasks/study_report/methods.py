"""The table of methods: how good, at what cost, and how far from the reference."""

from __future__ import annotations

import math

import pandas as pd

from tasks.study_report.estimates import BOOTSTRAP, Bootstrap, between, compare, estimate, spread
from tasks.study_report.rows import (
    COSTS,
    STRUCTURES,
    is_there,
    judged,
    names_in,
    of_cell,
    patients_of,
    prepare,
)


def method_table(
    cases: pd.DataFrame,
    cells: pd.DataFrame,
    reference: str = "fedavg",
    *,
    scenario: str = "clean",
    full_bytes: float = math.nan,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """One row per method, the best Dice first; made from the cells that are there.

    Args:
        cases: columns ``CASE_COLUMNS``; optionally ``patient_key``, an opaque id that is the same under every split.
        cells: columns ``CELL_COLUMNS``.
        reference: the method that the others are compared with.
        scenario: which one.
        full_bytes: size of the full weights as a site would upload them.
        bootstrap: how intervals are drawn.

    Returns:
        Index method. ``judged`` (global or own), ``dice`` with ``dice_low``, ``dice_high``, standard deviations over
        seeds (``dice_sd``), splits and training seeds alone (``sd_split``, ``sd_train``); ``dice_rv`` …; paired
        ``difference`` to the reference with ``low``, ``high`` and ``paired_seeds`` (NaN in its own row);
        ``in_client``, ``cross_client`` of personal models with ``_sd``; the mean of ``COSTS``; ``ratio`` of
        full to uploaded bytes, NaN without uploads; ``seeds``, ``patients``; ``undefined`` rows, and
        ``undefined_structures``, Dice of single structures that a row's mean does without. No rows without cells.

    Raises:
        DataError: columns are missing, rows are double, ``honest`` is not boolean, or some patient keys are empty.
    """
    rows = prepare(cases, cells)
    methods = [m for m in names_in("method", cells, cases) if is_there(rows, cells, m, scenario)]
    found = {m: _method_row(rows, cells, m, reference, scenario, full_bytes, bootstrap) for m in methods}
    table = pd.DataFrame.from_dict(found, orient="index").rename_axis("method")
    return table.sort_values("dice", ascending=False, kind="stable") if found else table


def _method_row(
    rows: pd.DataFrame,
    cells: pd.DataFrame,
    method: str,
    reference: str,
    scenario: str,
    full_bytes: float,
    bootstrap: Bootstrap,
) -> dict[str, object]:
    patients = patients_of(rows, method, scenario)
    found = estimate(patients, bootstrap)
    costs = of_cell(cells, method, scenario)[COSTS].mean()
    by_structure = {s: patients_of(rows, method, scenario, value=s) for s in STRUCTURES}
    structures = {s: spread(p, s)[s] for s, p in by_structure.items()}
    return {
        "judged": judged(rows, method, scenario),
        **spread(patients, "dice"),
        "dice_low": found.low,
        "dice_high": found.high,
        **dict(zip(("sd_split", "sd_train"), between(patients), strict=True)),
        **structures,
        **_difference_to(rows, method, reference, scenario, bootstrap),
        **spread(patients_of(rows, method, scenario, "own"), "in_client"),
        **spread(patients_of(rows, method, scenario, "others"), "cross_client"),
        **{name: float(costs[name]) for name in COSTS},
        "ratio": bytes_ratio(full_bytes, costs["upload_bytes"]),
        "seeds": found.seeds,
        "patients": found.patients,
        "undefined": found.left_out,
        "undefined_structures": sum(int(p["value"].isna().sum()) for p in by_structure.values()),
    }


def _difference_to(
    rows: pd.DataFrame, method: str, reference: str, scenario: str, bootstrap: Bootstrap
) -> dict[str, object]:
    if method == reference:
        return {"difference": math.nan, "low": math.nan, "high": math.nan, "paired_seeds": 0}
    found = compare(rows, (method, scenario, "main"), (reference, scenario, "main"), bootstrap)
    return {"difference": found.mean, "low": found.low, "high": found.high, "paired_seeds": found.seeds}


def bytes_ratio(full_bytes: float, uploads: float) -> float:
    """How many times an upload the full weights are; NaN without uploads."""
    return full_bytes / float(uploads) if uploads > 0 else math.nan
