"""What settings were chosen by, and what cells cost: worked out by hand from a few rounds."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from model.errors import DataError
from tasks.study_report.choices import ROUND_COLUMNS, choice_table
from tasks.study_report.costs import cell_costs, mean_upload
from tasks.study_report.roles import Roles
from tasks.study_report.rows import CASE_COLUMNS, CELL_COLUMNS
from tasks.study_report.tables import make_tables
from tasks.study_report.write import write_study

DEFAULTS = {"int8": "average", "lr": "fedavg"}


def rounds(method: str, seed: int, dice: tuple[float, float], upload: float = 100.0) -> pd.DataFrame:
    """Two rounds at sites a and b; the first is everywhere 0.1 and sends nothing."""
    rows = [(1, "a", 0.1, 0.0), (1, "b", 0.1, 0.0), (2, "a", dice[0], upload), (2, "b", dice[1], upload)]
    table = pd.DataFrame(rows, columns=["round", "site", "validation_dice", "upload_bytes"])
    names = {"method": method, "scenario": "clean", "split_seed": seed, "train_seed": seed}
    return table.assign(download_bytes=2.0 * upload, weight=1.0, **names)


def chosen() -> pd.DataFrame:
    """int8 is 0.02 and 0.04 above average (means .62, .74 against .6, .7), lr was run once, unlike fedavg."""
    parts = [rounds("average", 1, (0.5, 0.7)), rounds("average", 2, (0.6, 0.8))]
    parts += [rounds("int8", 1, (0.54, 0.7), 50.0), rounds("int8", 2, (0.64, 0.84), 50.0)]
    parts += [rounds("fedavg", 2, (0.6, 0.8)), rounds("lr", 1, (0.4, 0.4))]
    return pd.concat(parts)


def test_a_choice_is_compared_with_its_default_on_the_same_seeds() -> None:
    table = choice_table(chosen(), DEFAULTS, full_bytes=1000.0)
    row = table.loc["int8"]
    assert row["validation_dice"] == pytest.approx(0.68)
    assert row["validation_dice_sd"] == pytest.approx(0.12 / math.sqrt(2))
    assert row["difference"] == pytest.approx(0.03)
    assert row["difference_sd"] == pytest.approx(0.02 / math.sqrt(2))
    assert row[["upload_bytes", "download_bytes", "ratio"]].tolist() == [50.0, 100.0, 20.0]
    assert (row["default"], row["seeds"], row["paired_seeds"]) == ("average", 2, 2)


def test_a_default_stands_before_its_choices_and_has_no_difference() -> None:
    table = choice_table(chosen(), DEFAULTS)
    assert table.index.tolist() == ["average", "int8", "fedavg", "lr"]
    assert table.loc["average", "default"] == "average"
    assert math.isnan(table.loc["average", "difference"])


def test_without_a_common_seed_there_is_no_difference() -> None:
    row = choice_table(chosen(), DEFAULTS).loc["lr"]
    assert (row["seeds"], row["paired_seeds"]) == (1, 0)
    assert math.isnan(row["difference"])


def test_a_choice_whose_default_was_not_run_stands_alone() -> None:
    table = choice_table(rounds("int8", 1, (0.5, 0.7)), DEFAULTS)
    assert table.index.tolist() == ["int8"]
    assert math.isnan(table.loc["int8", "difference"])


def test_only_seeds_of_both_are_paired() -> None:
    more = pd.concat([chosen(), rounds("average", 3, (0.0, 0.0)), rounds("int8", 4, (1.0, 1.0))])
    row = choice_table(more, DEFAULTS).loc["int8"]
    assert row["difference"] == pytest.approx(0.03)
    assert (row["seeds"], row["paired_seeds"]) == (3, 2)


def test_an_undefined_dice_is_not_left_out_in_silence() -> None:
    parts = [rounds("average", 1, (0.5, 0.7)), rounds("int8", 1, (math.nan, 0.7))]
    row = choice_table(pd.concat(parts), DEFAULTS).loc["int8"]
    assert math.isnan(row["validation_dice"])
    assert math.isnan(row["difference"])


def test_no_choices_no_rows_and_a_missing_column_is_named() -> None:
    assert choice_table(pd.DataFrame(columns=ROUND_COLUMNS), {}).empty
    with pytest.raises(DataError, match="no column upload_bytes"):
        choice_table(chosen().drop(columns="upload_bytes"), DEFAULTS)


def test_the_page_says_that_choices_never_saw_the_test(tmp_path: Path) -> None:
    empty = make_tables(pd.DataFrame(columns=CASE_COLUMNS), pd.DataFrame(columns=CELL_COLUMNS), Roles())
    write_study(tmp_path / "with", empty, choice_table(chosen(), DEFAULTS, full_bytes=1000.0))
    page = (tmp_path / "with" / "README.md").read_text()
    assert "## What the defaults were chosen by (validation)\n\nThe test was not opened for these." in page
    assert "| int8 | 0.680 ± 0.085 | +0.030 ± 0.014 | average | 0.1 kB | 0.1 kB | 20.0 | 2 | 2 |" in page
    assert "| average | 0.650 ± 0.071 | default |" in page
    write_study(tmp_path / "without", empty)
    assert not (tmp_path / "without" / "choices.csv").exists()
    assert "chosen by" not in (tmp_path / "without" / "README.md").read_text()


def test_costs_of_a_cell_are_those_of_its_honest_sites() -> None:
    table = rounds("rated", 1, (0.6, 0.2)).assign(weight=[1.0, 0.5, 0.8, 0.1])
    found = cell_costs(table, {"b"}, rates=True)
    assert found["validation_dice"] == 0.6
    assert (found["weights_mean"], found["weights_min"]) == pytest.approx((0.9, 0.8))
    assert found["attacker_weight"] == pytest.approx(0.3)
    assert (found["upload_bytes"], found["download_bytes"]) == (100.0, 200.0)


def test_a_method_without_ratings_has_no_weights() -> None:
    found = cell_costs(rounds("average", 1, (0.6, 0.2)), {"b"}, rates=False)
    assert all(math.isnan(found[name]) for name in ("weights_mean", "weights_min", "attacker_weight"))


def test_absent_sites_do_not_lower_the_upload_and_no_upload_is_zero() -> None:
    table = rounds("rated", 1, (0.6, 0.2))
    assert mean_upload(table) == 100.0
    assert mean_upload(table.assign(upload_bytes=0.0)) == 0.0
