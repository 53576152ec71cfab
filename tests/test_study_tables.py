"""The table of methods and the written study, against numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from study_frames import FEW, case, case_rows, cell, claims, frames, study, tables

from model.errors import DataError
from tasks.study_report.estimates import estimate, paired
from tasks.study_report.methods import method_table
from tasks.study_report.missing import missing_cells
from tasks.study_report.page import study_page
from tasks.study_report.picture_bytes import bytes_picture
from tasks.study_report.picture_methods import method_picture
from tasks.study_report.picture_scenarios import scenario_picture
from tasks.study_report.rows import CASE_COLUMNS, CELL_COLUMNS, patients_of, prepare
from tasks.study_report.write import write_study


def test_dice_is_the_mean_over_seeds_of_sites_of_patients() -> None:
    row = method_table(*study(), bootstrap=FEW).loc["fedavg"]
    assert row["dice"] == pytest.approx(0.75)
    assert row["dice_sd"] == pytest.approx(math.sqrt(0.005))
    assert row["sd_split"] == pytest.approx(math.sqrt(0.005))
    assert math.isnan(row["sd_train"]) and math.isnan(row["difference"])
    assert (row["judged"], row["seeds"], row["patients"], row["undefined"]) == ("global", 2, 6, 0)


def test_the_difference_to_the_reference_is_paired() -> None:
    row = method_table(*study(), bootstrap=FEW).loc["rated"]
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((-0.002,) * 3)
    assert row["paired_seeds"] == 2


def test_personal_models_are_split_into_own_and_other_patients() -> None:
    table = method_table(*study(), bootstrap=FEW)
    assert table.loc["rated", ["in_client", "cross_client"]].tolist() == pytest.approx([0.76, 0.74])
    assert math.isnan(table.loc["fedavg", "in_client"])
    assert table.loc["local", "judged"] == "own"
    assert table.loc["local", ["dice", "in_client", "cross_client"]].tolist() == pytest.approx(
        [0.75, 0.75, 0.65]
    )


def test_full_weights_are_put_over_uploads_where_there_are_any() -> None:
    table = method_table(*study(), full_bytes=200_000.0, bootstrap=FEW)
    assert table.loc["rated", "ratio"] == pytest.approx(200.0)
    assert math.isnan(table.loc["local", "ratio"])


def test_several_owners_count_once_per_patient() -> None:
    rows = [case("m", "clean", 1, "a", 0, d, model="personal", owner=o) for d, o in ((0.2, "b"), (0.6, "c"))]
    found = patients_of(prepare(*frames(rows, [cell("m")])), "m", "clean", "others")
    assert found["value"].tolist() == pytest.approx([0.4])


def test_an_undefined_dice_is_counted() -> None:
    cases, cells = study()
    cases.loc[(cases["method"] == "fedavg") & (cases["site"] == "b") & (cases["split_seed"] == 1), "dice"] = (
        np.nan
    )
    table = method_table(cases, cells, bootstrap=FEW)
    assert table.loc["fedavg", "undefined"] == 1
    assert table.loc["fedavg", "dice"] == pytest.approx((0.7 + 0.7) / 2)


def test_an_undefined_structure_is_counted_and_said_while_the_patient_stays() -> None:
    cases, cells = study()
    cases.loc[(cases["method"] == "fedavg") & (cases["patient"] == "p1"), "dice_rv"] = np.nan
    found = tables(cases, cells)
    row = found.methods.loc["fedavg"]
    assert (row["undefined_structures"], row["undefined"], row["patients"]) == (2, 0, 6)
    assert "(fedavg: 2)" in study_page(found, pd.DataFrame(), {})
    assert "undefined" not in study_page(tables(*study()), pd.DataFrame(), {})


def lacking(*methods: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The study before these were run."""
    cases, cells = study()
    return cases[~cases["method"].isin(methods)], cells[~cells["method"].isin(methods)]


@pytest.mark.parametrize(
    "frames",
    [
        lacking("fedavg"),
        lacking("rated"),
        lacking("plain", "local"),
        lacking("rated", "plain", "local"),
        tuple(frame[frame["split_seed"] == 1] for frame in study()),
    ],
    ids=["no fedavg", "no rated", "only fedavg and rated", "only fedavg", "one seed"],
)
def test_an_interrupted_study_has_tables_pictures_and_a_page(
    frames: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    found = tables(*frames)
    assert (tmp_path / "README.md") in write_study(tmp_path, found)
    for picture in (
        method_picture(found.methods, left_out=found.incomplete),
        bytes_picture(found.methods, left_out=found.incomplete),
        scenario_picture(found.scenarios),
    ):
        assert picture.startswith(b"\x89PNG")


def test_nothing_run_is_unclear_everywhere_and_has_empty_tables() -> None:
    empty = pd.DataFrame(columns=CASE_COLUMNS), pd.DataFrame(columns=CELL_COLUMNS)
    assert {row["met"] for row in claims(*empty).values()} == {"unclear"}
    found = tables(*empty)
    assert all(t.empty for t in (found.methods, found.scenarios, found.seeds, found.lacking))


def test_tables_are_made_from_the_cells_that_are_there_and_the_missing_are_named() -> None:
    cases, cells = study()
    gone = (cases["method"] == "rated") & (cases["scenario"] == "clean") & (cases["split_seed"] == 2)
    lost = (cells["method"] == "rated") & (cells["scenario"] == "clean") & (cells["split_seed"] == 2)
    table = method_table(cases[~gone], cells[~lost], bootstrap=FEW)
    assert (table.loc["rated", "seeds"], table.loc["rated", "paired_seeds"]) == (1, 1)
    assert table.loc["rated", "difference"] == pytest.approx(-0.002)
    assert missing_cells(cases[~gone], cells[~lost]).to_numpy().tolist() == [["rated", "clean", 2, 1, "run"]]
    assert missing_cells(cases[~gone], cells)["lacks"].tolist() == ["test cases"]
    assert missing_cells(cases, cells[~lost])["lacks"].tolist() == ["costs"]


def test_a_planned_cell_that_nobody_ran_is_missing() -> None:
    planned = pd.DataFrame([cell("rated"), cell("krum", "late", 3)])[
        ["method", "scenario", "split_seed", "train_seed"]
    ]
    assert missing_cells(*study(), planned).to_numpy().tolist() == [["krum", "late", 3, 1, "run"]]


def test_a_patient_known_under_all_splits_is_drawn_as_one() -> None:
    cases, cells = study()
    keyed = cases.assign(patient_key=cases["site"] + cases["patient"])
    assert method_table(keyed, cells, bootstrap=FEW).loc["fedavg", "patients"] == 3
    assert method_table(keyed, cells, bootstrap=FEW).loc["fedavg", "dice"] == pytest.approx(0.75)


def test_keys_pair_patients_even_when_their_site_has_another_name() -> None:
    cases = case_rows("rated") + case_rows("rated", "imbalanced", -0.03)
    frame = pd.DataFrame(cases)
    frame["patient_key"] = frame["site"] + frame["patient"]
    frame.loc[frame["scenario"] == "imbalanced", "site"] += "-north"
    rows = prepare(frame, pd.DataFrame([cell("rated")]))
    found = estimate(
        paired(patients_of(rows, "rated", "imbalanced"), patients_of(rows, "rated", "clean")), FEW
    )
    assert (found.mean, found.left_out) == (pytest.approx(-0.03), 0)


def test_a_key_that_moves_between_sites_is_drawn_from_all() -> None:
    cases = [
        case("m", "clean", s, site, 0, d, patient_key=k)
        for s, site, d, k in (
            (1, "a", 0.2, "x"),
            (1, "b", 0.4, "y"),
            (2, "b", 0.6, "x"),
            (2, "a", 0.8, "y"),
        )
    ]
    found = method_table(*frames(cases, [cell("m")]), bootstrap=FEW).loc["m"]
    assert found["dice"] == pytest.approx(0.5)
    assert found["dice_low"] < 0.5 < found["dice_high"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.drop(columns="honest"), "no column honest"),
        (lambda c: pd.concat([c, c.head(1)]), "rows are double"),
        (lambda c: c.assign(honest="yes"), "not boolean"),
        (lambda c: c.assign(patient_key="k"), "rows are double"),
        (lambda c: c.assign(patient_key=[""] + ["k"] * (len(c) - 1)), "have no key"),
    ],
)
def test_faulty_frames_are_refused(change: object, message: str) -> None:
    cases, cells = study()
    with pytest.raises(DataError, match=message):
        method_table(change(cases), cells)  # type: ignore[operator]


def test_the_written_study_holds_aggregates_and_no_patient(tmp_path: Path) -> None:
    cases, cells = study()
    cases = cases.assign(
        patient="PSEUDO-" + cases["patient"], patient_key="KEY-" + cases["site"] + cases["patient"]
    )
    cells = cells.assign(note="PSEUDO-note")
    gone = (cases["method"] == "plain") & (cases["split_seed"] == 2)
    written = write_study(tmp_path, tables(cases[~gone], cells), pictures={"Dice by method": b"png"})
    names = ["methods.csv", "scenarios.csv", "seeds.csv", "claims.csv", "cells.csv"]
    names += ["README.md", "dice-by-method.png"]
    assert [path.name for path in written] == names
    texts = {path.name: path.read_text() for path in written}
    assert not any(word in text for text in texts.values() for word in ("PSEUDO", "KEY-"))
    readme = texts["README.md"]
    assert "**Provisional: 2 cells of the study missing (see the end).**" in readme
    assert "| plain | clean | test cases | 2/1 |" in readme
    assert "| fedavg | 0.750 ± 0.071 | reference |" in readme
    assert "![Dice by method](dice-by-method.png)" in readme


def test_the_same_frames_in_another_order_write_the_same_numbers(tmp_path: Path) -> None:
    cases, cells = study()
    for name, frame in (("a", cases), ("b", cases.sample(frac=1.0, random_state=3))):
        write_study(tmp_path / name, tables(frame, cells))
    for file in ("methods.csv", "scenarios.csv", "seeds.csv", "claims.csv", "README.md"):
        assert (tmp_path / "a" / file).read_text() == (tmp_path / "b" / file).read_text()
