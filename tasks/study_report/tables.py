"""All tables of the study, made once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from tasks.study_report.claims import claims_table
from tasks.study_report.estimates import BOOTSTRAP, Bootstrap
from tasks.study_report.methods import method_table
from tasks.study_report.missing import lacking_methods, missing_cells
from tasks.study_report.roles import Roles
from tasks.study_report.rows import CELL, CELL_COLUMNS
from tasks.study_report.scenarios import scenario_table
from tasks.study_report.seeds import seed_table


@dataclass(frozen=True)
class Tables:
    """What the report is written from; aggregates over sites, nothing about a patient or a single site.

    Attributes:
        methods: of ``method_table``.
        scenarios: of ``scenario_table``.
        seeds: of ``seed_table``, of methods that have all their seeds.
        claims: of ``claims_table``.
        cells: ``CELL_COLUMNS`` of every cell.
        lacking: of ``missing_cells``.
        incomplete: methods that lack seeds in the clean federation.
        roles: the names of methods and scenarios.
        keyed: whether patients are known under all splits.
    """

    methods: pd.DataFrame
    scenarios: pd.DataFrame
    seeds: pd.DataFrame
    claims: pd.DataFrame
    cells: pd.DataFrame
    lacking: pd.DataFrame
    incomplete: tuple[str, ...]
    roles: Roles
    keyed: bool


def make_tables(
    cases: pd.DataFrame,
    cells: pd.DataFrame,
    roles: Roles,
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
    shown = (roles.ours, roles.plain, *roles.rivals)
    scenarios = scenario_table(cases, cells, shown, roles.beside, bootstrap=bootstrap)
    lacking = missing_cells(cases, cells, planned)
    incomplete = lacking_methods(lacking, roles.clean)
    whole = [name for name in roles.by_seed if name in methods.index and name not in incomplete]
    return Tables(
        methods,
        scenarios,
        seed_table(cases, cells, whole, roles.clean),
        claims_table(cases, cells, scenarios, roles, full_bytes=full_bytes, bootstrap=bootstrap),
        cells[CELL_COLUMNS].sort_values(CELL),
        lacking,
        incomplete,
        roles,
        "patient_key" in cases,
    )
