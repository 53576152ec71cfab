"""Of few patients nothing is counted or averaged in what others see, and scores are rounded as the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from federation_files import SITES, finish_round, found, new_run, trained, use_store
from hypothesis import given
from hypothesis import strategies as st

from tasks.adapt import adapt_site, structure_summaries
from tasks.cases import SiteCard
from tasks.enrol import read_card
from tasks.ledger import card_key, evaluation_key, get_record, ratings_key, update_key, verdict_key
from tasks.records import Evaluation, Ratings, Update, Verdict
from tasks.settings import Environment, Privacy
from tasks.small_cells import kept_cells, shareable

FEWEST = 5
CELLS = st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 20), max_size=7)


def card(**changes: Any) -> SiteCard:
    about = {
        "site": "st-anna",
        "patients": {"train": 9, "validation": 3, "test": 2},
        "slices": {"train": 90, "validation": 30, "test": 20},
        "groups": {"DCM": 6, "NOR": 8},
        "spacing_min_mm": (5.0, 1.36719, 1.36719),
        "spacing_max_mm": (10.0, 1.68005, 1.68005),
        "crop_px": 96,
        "crop_spacing_mm": 2.0,
        "dataset_md5": "0" * 32,
    }
    return SiteCard.model_validate(about | changes)


def summaries(patients: int, fewest: int = FEWEST, dice: float = 0.123456) -> Any:
    rows = [
        {"patient": f"p{k}", "structure": "LV", "dice": dice} for k in range(patients) for _ in ("ED", "ES")
    ]
    return structure_summaries(pd.DataFrame(rows), Privacy(digits=4, fewest=fewest))["LV"]


@given(CELLS)
def test_no_cell_of_one_to_four_patients_is_kept(cells: dict[str, int]) -> None:
    kept = kept_cells(cells, FEWEST)
    assert kept.items() <= cells.items()
    assert not any(0 < n < FEWEST for n in kept.values())


@given(CELLS)
def test_what_follows_from_the_total_is_nobody_or_enough_patients(cells: dict[str, int]) -> None:
    kept = kept_cells(cells, FEWEST)
    gone = sum(n for cell, n in cells.items() if cell not in kept)
    assert not 0 < gone < FEWEST or not any(kept.values())


@given(CELLS)
def test_nothing_is_left_out_where_every_cell_has_five(cells: dict[str, int]) -> None:
    enough = {cell: n for cell, n in cells.items() if n == 0 or n >= FEWEST}
    assert kept_cells(enough, FEWEST) == enough


def test_a_card_names_what_it_withholds_and_keeps_what_the_hub_reckons_with() -> None:
    shared = shareable(card(groups={"DCM": 1, "HCM": 5, "NOR": 8}), FEWEST)
    assert (shared.patients, shared.slices, shared.groups) == ({"train": 9}, {"train": 90}, {"NOR": 8})
    assert set(shared.suppressed) == {
        *("patients.validation", "patients.test", "slices.validation", "slices.test"),
        *("groups.DCM", "groups.HCM"),
    }


def test_training_slices_stay_though_the_training_side_is_a_small_cell() -> None:
    shared = shareable(card(patients={"train": 2, "validation": 1, "test": 1}), FEWEST)
    assert (shared.patients, shared.slices) == ({}, {"train": 90})
    assert (shared.spacing_min_mm, "spacing" in shared.suppressed) == (None, True)


def test_ranges_of_a_card_are_rounded() -> None:
    shared = shareable(card(), FEWEST)
    assert (shared.spacing_min_mm, shared.spacing_max_mm) == ((5.0, 1.37, 1.37), (10.0, 1.68, 1.68))


@pytest.mark.parametrize("patients", [1, 4])
def test_a_summary_of_fewer_than_five_patients_says_only_that_it_is_withheld(patients: int) -> None:
    told = summaries(patients)
    assert (told.mean, told.sd, told.n, told.undefined, told.suppressed) == (None, None, None, None, True)


def test_a_summary_of_five_patients_is_told_and_rounded() -> None:
    told = summaries(5)
    assert (told.mean, told.sd, told.n, told.undefined, told.suppressed) == (0.1235, 0.0, 10, 0, False)


def test_patients_whose_dice_is_undefined_do_not_fill_a_cell() -> None:
    rows = [{"patient": f"p{k}", "structure": "LV", "dice": 0.5 if k < 4 else float("nan")} for k in range(9)]
    assert structure_summaries(pd.DataFrame(rows), Privacy())["LV"].suppressed


def numbers(tree: Any) -> list[float]:
    if isinstance(tree, dict):
        return [x for value in tree.values() for x in numbers(value)]
    if isinstance(tree, list | tuple):
        return [x for value in tree for x in numbers(value)]
    return [tree] if isinstance(tree, float) else []


@pytest.mark.parametrize("digits", [2, 4])
def test_every_score_that_leaves_a_site_is_rounded_and_its_card_has_no_small_cell(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    s3_environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    digits: int,
) -> None:
    use_store(monkeypatch, s3_environment)
    ws = found(new_run(tmp_path_factory, tmp_path / "run", f"privacy.digits={digits}"))
    finish_round(trained(ws), 1)
    for site in SITES:
        adapt_site(ws, 1, site)
        told = [
            get_record(ws.store, ratings_key(site, 1), Ratings).model_dump(),
            get_record(ws.store, verdict_key(site, 1), Verdict).model_dump(),
            get_record(ws.store, update_key(site, 1), Update).curve,
        ]
        values = numbers(told)
        assert len(values) > 10
        assert all(value == round(value, digits) for value in values)
        evaluation = get_record(ws.store, evaluation_key(site, 1), Evaluation)
        assert all(summary.suppressed for summary in evaluation.after.values())  # one patient validates
        own, shared = (
            read_card(ws.data_home(site)),
            get_record(ws.store, card_key(site), SiteCard),
        )
        assert own.groups and own.patients["validation"] and not own.suppressed
        assert (shared.groups, shared.patients) == ({}, {})
