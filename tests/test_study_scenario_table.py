"""The table of scenarios: whom each is compared with, and which methods stand in it."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
from study_frames import FEW, ROLES, case_rows, cell, study, tables

from tasks.study_report.page import study_page
from tasks.study_report.scenarios import scenario_table

METHODS = ("rated", "plain", "median", "krum")


def table_of(cases: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    return scenario_table(cases, cells, METHODS, ROLES.beside, bootstrap=FEW)


def with_more(*kinds: tuple[str, str, float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The study with methods in further scenarios, so far above DICE."""
    cases, cells = study()
    rows = [row for method, scenario, shift in kinds for row in case_rows(method, scenario, shift)]
    costs = [cell(method, scenario, split) for method, scenario, _ in kinds for split in (1, 2)]
    return pd.concat([cases, pd.DataFrame(rows)]), pd.concat([cells, pd.DataFrame(costs)])


def test_a_scenario_is_compared_with_the_same_honest_patients_in_its_clean_twin() -> None:
    table = table_of(*study())
    rated, plain = table.loc[("sign-flip", "rated")], table.loc[("sign-flip", "plain")]
    assert rated["dice"] == pytest.approx(0.65 - 0.012)  # site a alone: (.7 + .6) / 2
    assert rated["difference"] == pytest.approx(-0.010)
    assert plain["difference"] == pytest.approx(-0.2)
    assert plain["to_rated"] == pytest.approx(-0.198)
    assert (rated["paired_patients"], rated["left_out"]) == (4, 0)
    assert rated["attacker_weight"] == pytest.approx(0.15)
    assert rated["honest_min"] == 0.9


def test_exactly_one_point_is_within_one_point_and_only_the_rated_method_is_held_to_it() -> None:
    within = table_of(*study())["within_1_point"]
    assert within[("sign-flip", "rated")]
    assert not within[("liar", "rated")]
    assert pd.isna(within[("sign-flip", "plain")]) and pd.isna(within[("clean", "rated")])


def test_without_its_clean_twin_a_scenario_has_no_difference() -> None:
    cases, cells = study()
    table = table_of(cases[cases["scenario"] != "clean"], cells)
    assert math.isnan(table.loc[("sign-flip", "rated"), "difference"])
    assert pd.isna(table.loc[("sign-flip", "rated"), "within_1_point"])


def test_a_scenario_is_compared_with_the_one_beside_it_and_not_always_with_the_clean_one() -> None:
    frames = with_more(("rated", "scanner-shift", -0.102), ("rated", "stealthy-poison", -0.103))
    twins = {"scanner-shift": "clean", "stealthy-poison": "scanner-shift"}
    table = scenario_table(*frames, METHODS, ROLES.beside | twins, bootstrap=FEW)
    assert table.loc[("scanner-shift", "rated"), "difference"] == pytest.approx(-0.1)
    assert table.loc[("stealthy-poison", "rated"), "difference"] == pytest.approx(-0.001)
    assert table.loc[("stealthy-poison", "rated"), "within_1_point"]
    assert table.loc[("stealthy-poison", "rated"), "beside"] == "scanner-shift"


def test_a_scenario_with_other_sites_is_compared_with_nothing() -> None:
    row = table_of(*with_more(("rated", "mixed-clinic", 0.01))).loc[("mixed-clinic", "rated")]
    assert (row["dice"], row["seeds"], row["paired_seeds"]) == (pytest.approx(0.76), 2, 0)
    assert math.isnan(row["difference"]) and pd.isna(row["within_1_point"])


def test_rivals_stand_after_rated_and_plain_in_their_order_where_they_were_run() -> None:
    kinds = [("krum", "sign-flip", -0.05), ("median", "sign-flip", -0.04), ("median", "clean", 0.0)]
    table = table_of(*with_more(*kinds))
    methods = {s: [m for there, m in table.index if there == s] for s in ("clean", "sign-flip", "liar")}
    assert methods == {"clean": ["rated", "plain", "median"], "sign-flip": list(METHODS), "liar": ["rated"]}
    assert table.loc[("sign-flip", "median"), "difference"] == pytest.approx(-0.04)
    assert math.isnan(table.loc[("sign-flip", "krum"), "difference"])


def test_the_page_names_scenarios_whose_twin_is_not_the_clean_one_and_those_without() -> None:
    kinds = [("rated", "scanner-shift", 0.0), ("rated", "stealthy-poison", 0.0), ("rated", "imbalanced", 0.0)]
    roles = replace(
        ROLES, beside={"scanner-shift": "clean", "stealthy-poison": "scanner-shift"} | ROLES.beside
    )
    page = study_page(tables(*with_more(*kinds), roles), pd.DataFrame(), {})
    assert "difference to its clean twin" in page
    assert "The twin is clean; that of stealthy-poison is scanner-shift, because" in page
    assert "Without a twin, because their sites or images are others: imbalanced." in page
    plain = study_page(tables(*study()), pd.DataFrame(), {})
    assert "on the same patients. The twin is clean.\n" in plain
