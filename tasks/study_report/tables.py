"""All tables of the study, made once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from tasks.study_report.claims import ROLES, Roles, claims_table
from tasks.study_report.estimates import BOOTSTRAP, Bootstrap
from tasks.study_report.methods import method_table
from tasks.study_report.missing import missing_cells
from tasks.study_report.rows import CELL, CELL_COLUMNS
from tasks.study_report.scenarios import scenario_table


@dataclass(frozen=True)
class Tables:
    """What the report is written from; aggregates over sites, nothing about a patient or a single site.

    Attributes:
        methods: of ``method_table``.
        scenarios: of ``scenario_table``.
        claims: of ``claims_table``.
        cells: ``CELL_COLUMNS`` of every cell.
        lacking: of ``missing_cells``.
        roles: the names of methods and scenarios.
        keyed: whether patients are known under all splits.
    """

    methods: pd.DataFrame
    scenarios: pd.DataFrame
    claims: pd.DataFrame
    cells: pd.DataFrame
    lacking: pd.DataFrame
    roles: Roles
    keyed: bool


def make_tables(
    cases: pd.DataFrame,
    cells: pd.DataFrame,
    roles: Roles = ROLES,
    *,
    full_bytes: float = math.nan,
    planned: pd.DataFrame | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Tables:
    """Make every table from the cells that are there.

    Args:
        cases: as for ``method_table``.
        cells: as for ``method_table``; columns beyond ``CELL_COLUMNS`` are left out.
        roles: the names of methods and scenarios.
        full_bytes: size of the full weights.
        planned: as for ``missing_cells``.
        bootstrap: how intervals are drawn.

    Returns:
        The tables.

    Raises:
        DataError: as for ``method_table``.
    """
    methods = method_table(
        cases, cells, roles.reference, scenario=roles.clean, full_bytes=full_bytes, bootstrap=bootstrap
    )
    scenarios = scenario_table(cases, cells, (roles.ours, roles.average), roles.clean, bootstrap=bootstrap)
    return Tables(
        methods,
        scenarios,
        claims_table(cases, cells, scenarios, roles, full_bytes=full_bytes, bootstrap=bootstrap),
        cells[CELL_COLUMNS].sort_values(CELL),
        missing_cells(cases, cells, planned),
        roles,
        "patient_key" in cases,
    )
