"""The test side: opened once per training, written down, and scored as by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from study_files import CULPRIT, SITES, study_root, study_settings, study_source
from torch import Tensor, nn

import tasks.study.test_set
from model.scoring import segment
from tasks.slices import Slices
from tasks.study.cell import Cell
from tasks.study.run import run_cell
from tasks.study.test_set import RECORD, open_test, patient_dice, record_opening

CELL = Cell("fedavg", "clean", 1, 1)


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return study_root(tmp_path_factory, tmp_path / "study")


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_source(tmp_path_factory)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many test slices were segmented, every time."""
    seen: list[int] = []

    def spy(net: nn.Module, images: Tensor) -> Tensor:
        seen.append(len(images))
        return segment(net, images)

    monkeypatch.setattr(tasks.study.test_set, "segment", spy)
    return seen


def opened(root: Path, source: Path, cell: Cell, *overrides: str) -> pd.DataFrame:
    params = study_settings(*overrides)
    run_cell(root, source, cell, params)
    return pd.read_csv(open_test(root, source, cell, params)).astype({"owner": object}).fillna({"owner": ""})


def volumes(*parts: tuple[int, int, list[list[int]]]) -> Slices:
    """One slice of one row per (patient, phase, labels)."""
    masks = torch.tensor([labels for _, _, labels in parts])
    patient, phase = (torch.tensor([part[i] for part in parts]) for i in (0, 1))
    return Slices(
        torch.zeros(len(parts), 1, *masks.shape[1:]), masks, patient, phase, torch.arange(len(parts))
    )


def test_a_patients_dice_is_the_mean_of_both_volumes() -> None:
    truth = volumes((1, 0, [[1, 1, 2, 3]]), (1, 1, [[1, 1, 2, 3]]))
    predicted = torch.tensor([[[1, 1, 2, 3]], [[1, 0, 3, 3]]])
    rv, myo, lv = patient_dice(predicted, truth)[1]
    assert rv == pytest.approx((1 + 2 / 3) / 2)
    assert myo == pytest.approx((1 + 0) / 2)
    assert lv == pytest.approx((1 + 2 / 3) / 2)


def test_slices_of_a_volume_are_scored_together_and_patients_apart() -> None:
    truth = volumes((4, 0, [[1, 1]]), (9, 0, [[1, 0]]), (4, 0, [[1, 0]]), (4, 1, [[1, 1]]), (9, 1, [[1, 1]]))
    predicted = torch.tensor([[[1, 1]], [[0, 1]], [[0, 0]], [[1, 1]], [[1, 1]]])
    found = patient_dice(predicted, truth)
    assert list(found) == [4, 9]
    assert found[4][0] == pytest.approx((2 * 2 / (2 + 3) + 1) / 2)  # not the mean of slices, (1 + 0) / 2
    assert found[9][0] == pytest.approx((0 + 1) / 2)


def test_a_structure_that_stands_nowhere_is_undefined_and_one_phase_suffices() -> None:
    truth = volumes((1, 0, [[1, 0, 0]]), (1, 1, [[0, 0, 0]]))
    predicted = torch.tensor([[[1, 0, 0]], [[0, 0, 2]]])
    rv, myo, lv = patient_dice(predicted, truth)[1]
    assert rv == 1.0  # ES has none, in truth and answer
    assert myo == 0.0  # answered where there is none
    assert math.isnan(lv)


def test_a_cells_test_is_opened_once(root: Path, source: Path, looks: list[int]) -> None:
    first = opened(root, source, CELL)
    assert looks
    looks.clear()
    pd.testing.assert_frame_equal(opened(root, source, CELL), first)
    assert looks == []


def test_a_cell_trained_anew_is_tested_anew(root: Path, source: Path, looks: list[int]) -> None:
    first = opened(root, source, CELL)
    looks.clear()
    again = opened(root, source, CELL, "training.learning_rate_full=0.02")
    assert looks
    assert again["dice"].tolist() != first["dice"].tolist()


def test_training_a_cell_never_opens_its_test(root: Path, source: Path, looks: list[int]) -> None:
    folder = run_cell(root, source, CELL, study_settings())
    assert looks == []
    assert not list(folder.glob("test*"))


def test_a_global_model_and_its_adapted_ones_meet_every_sites_patients(root: Path, source: Path) -> None:
    cases = opened(root, source, CELL)
    shared, personal = (cases[cases["model"] == kind] for kind in ("global", "personal"))
    assert sorted(shared["site"]) == list(SITES)  # one test patient each
    assert sorted(zip(personal["owner"], personal["site"], strict=True)) == [
        (o, s) for o in SITES for s in SITES
    ]
    assert (shared["owner"] == "").all()
    structures = cases[["dice_rv", "dice_myo", "dice_lv"]]
    assert cases["dice"].tolist() == pytest.approx(structures.mean(axis=1).tolist(), abs=1e-5)
    assert structures.stack().between(0, 1).all()
    assert not cases.duplicated(["model", "owner", "site", "patient"]).any()


def test_models_trained_alone_meet_every_sites_patients_and_are_not_adapted_further(
    root: Path, source: Path
) -> None:
    cases = opened(root, source, Cell("local-full", "clean", 1, 1))
    assert set(cases["model"]) == {"personal"}
    assert len(cases) == len(SITES) ** 2


def test_outside_the_clean_federation_only_the_global_model_is_tested_and_attackers_are_marked(
    root: Path, source: Path
) -> None:
    cases = opened(root, source, Cell("average", "swapped-labels", 1, 1)).set_index("site")
    assert set(cases["model"]) == {"global"}
    assert {site: bool(cases.loc[site, "honest"]) for site in SITES} == {s: s != CULPRIT for s in SITES}


def test_a_patient_is_one_and_the_same_under_every_split(root: Path, source: Path) -> None:
    """Five groups of three, one tested each: over four splits keys come back, and stay with their group."""
    met: dict[str, set[str]] = {site: set() for site in SITES}
    for split in range(1, 5):
        cases = opened(root, source, Cell("zero-shot", "clean", split, 1))
        for site, key in zip(cases["site"], cases["patient_key"], strict=True):
            met[site].add(key)
    assert all(len(keys) <= 3 for keys in met.values())
    assert any(len(keys) > 1 for keys in met.values())
    assert len(set().union(*met.values())) == sum(map(len, met.values()))


def test_every_opening_is_written_down_once_and_earlier_ones_stay(root: Path, source: Path) -> None:
    other = Cell("zero-shot", "clean", 1, 1)
    for cells in ([CELL], [CELL], [CELL, other]):
        for cell in cells:
            opened(root, source, cell)
        record_opening(root, cells)
    entries = json.loads((root / RECORD).read_text())
    assert [list(entry["cells"]) for entry in entries] == [[CELL.name], [other.name]]
    assert all(set(entry) == {"opened", "code_version", "cells"} for entry in entries)
    assert entries[0]["opened"] <= entries[1]["opened"]
