"""What seeds do: Dice pair by pair, and how far it moves with one seed alone."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from study_frames import FEW, ROLES, case, cell, study, tables

from tasks.study_report.page import study_page
from tasks.study_report.seeds import change_of, seed_table
from tasks.study_report.tables import make_tables

PAIRS = ((4, 1), (5, 1), (5, 2), (10, 2))
DICE = {"fedavg": (0.70, 0.74, 0.75, 0.69), "rated": (0.71, 0.73, 0.76, 0.70)}
"""From the training seed alone .01 and .03, from the split alone .04, .06 and .02, .06."""


def seeded() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A patient under every pair of seeds, the pairs in no order."""
    kinds = [(m, s, t, d) for m, row in DICE.items() for (s, t), d in zip(PAIRS, row, strict=True)][::-1]
    cases = [case(m, "clean", s, "a", 0, d, train_seed=t) for m, s, t, d in kinds]
    return pd.DataFrame(cases), pd.DataFrame([cell(m, split=s, train_seed=t) for m, s, t, _ in kinds])


def test_dice_stands_under_its_pair_of_seeds_in_rising_order() -> None:
    table = seed_table(*seeded(), ["rated", "fedavg"])
    assert table.columns.tolist() == ["4/1", "5/1", "5/2", "10/2"]
    assert table.index.tolist() == ["rated", "fedavg"]
    assert table.loc["fedavg"].tolist() == pytest.approx(DICE["fedavg"])


def test_pairs_that_share_a_seed_tell_what_the_other_one_does() -> None:
    table = seed_table(*seeded(), ["fedavg", "rated"])
    training, split = change_of(table, "train_seed"), change_of(table, "split_seed")
    assert training.pairs == (("5/1", "5/2"),)
    assert training.mean == pytest.approx(0.02)
    assert split.pairs == (("4/1", "5/1"), ("5/2", "10/2"))
    assert split.mean == pytest.approx(0.045)


def test_one_seed_shows_no_change() -> None:
    cases, cells = (frame[frame["split_seed"] == 4] for frame in seeded())
    change = change_of(seed_table(cases, cells, ["rated"]), "split_seed")
    assert (change.pairs, math.isnan(change.mean)) == ((), True)
    page = study_page(tables(cases, cells), pd.DataFrame(), {})
    assert "| rated | 0.710 |" in page
    assert "Mean absolute difference" not in page


def test_the_page_says_how_far_dice_moves_with_either_seed() -> None:
    page = study_page(tables(*seeded()), pd.DataFrame(), {})
    assert "| method | 4/1 | 5/1 | 5/2 | 10/2 |\n" in page
    assert "0.020 where only the training seed changes (5/1 → 5/2); " in page
    assert "0.045 where only the split changes (4/1 → 5/1, 5/2 → 10/2)." in page


def test_methods_that_lack_a_planned_seed_are_named_and_not_shown_seed_by_seed() -> None:
    cases, cells = seeded()
    planned = cells[["method", "scenario", "split_seed", "train_seed"]]
    gone = (cells["method"] == "fedavg") & (cells["split_seed"] == 4)
    lost = (cases["method"] == "fedavg") & (cases["split_seed"] == 4)
    found = make_tables(cases[~lost], cells[~gone], ROLES, planned=planned, bootstrap=FEW)
    assert found.incomplete == ("fedavg",)
    assert found.seeds.index.tolist() == ["rated"]
    assert "fedavg" in found.methods.index


def test_a_scenario_that_is_missing_leaves_the_clean_methods_whole() -> None:
    cases, cells = study()
    gone = [frame[(frame["scenario"] == "clean") | (frame["split_seed"] == 1)] for frame in (cases, cells)]
    planned = cells[["method", "scenario", "split_seed", "train_seed"]]
    found = make_tables(*gone, ROLES, planned=planned, bootstrap=FEW)
    assert not found.lacking.empty
    assert found.incomplete == ()
