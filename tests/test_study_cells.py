"""Cells: trained once, whole or not at all, the same bits again, and deaf to the test side."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from study_files import SITES, study_root, study_settings, study_source

import tasks.study.run
from model.errors import ConfigError
from tasks.files import write_atomic
from tasks.study.cell import Cell, Outcome
from tasks.study.choices import ALL
from tasks.study.methods import Method
from tasks.study.run import build_trial, cell_identity, read_models, run_cell
from tasks.study.trial import Trial

CELL = Cell("fedavg", "clean", 1, 1)


class PowerCutError(BaseException):
    """What no code catches."""


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return study_root(tmp_path_factory, tmp_path / "study")


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_source(tmp_path_factory)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The method's name, every time a cell is really trained."""
    ran: list[str] = []

    def counted(name: str, method: Method) -> Method:
        def run(trial: Trial) -> Outcome:
            ran.append(name)
            return method.run(trial)

        return replace(method, run=run)

    monkeypatch.setattr(tasks.study.run, "ALL", {name: counted(name, m) for name, m in ALL.items()})
    return ran


def files(folder: Path) -> dict[str, bytes]:
    """All that a cell leaves."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_cell_is_trained_once(root: Path, source: Path, trainings: list[str]) -> None:
    first = files(run_cell(root, source, CELL, study_settings()))
    assert files(run_cell(root, source, CELL, study_settings())) == first
    assert trainings == ["fedavg"]
    assert set(first) == {"models.safetensors", "rounds.csv", "gains.csv", "identity"}


@pytest.mark.parametrize("victim", ["models.safetensors", "rounds.csv", "identity"])
def test_a_kill_before_the_identity_leaves_the_cell_unfinished_and_it_is_run_again(
    root: Path, source: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    def cut(path: Path, data: bytes) -> None:
        if path.name == victim:
            raise PowerCutError
        write_atomic(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(tasks.study.run, "write_atomic", cut)
        with pytest.raises(PowerCutError):
            run_cell(root, source, CELL, study_settings())
    assert not (root / "cells" / CELL.name / "identity").exists()
    folder = run_cell(root, source, CELL, study_settings())
    assert (folder / "identity").exists()
    assert trainings == ["fedavg", "fedavg"]


def test_a_kill_while_a_cell_is_replaced_leaves_no_identity_beside_new_models(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_cell(root, source, CELL, study_settings())

    def cut(path: Path, data: bytes) -> None:
        if path.name == "rounds.csv":
            raise PowerCutError
        write_atomic(path, data)

    monkeypatch.setattr(tasks.study.run, "write_atomic", cut)
    with pytest.raises(PowerCutError):
        run_cell(root, source, CELL, study_settings("training.learning_rate_full=0.01"))
    assert not (folder / "identity").exists()


def test_a_changed_setting_trains_the_cell_anew(root: Path, source: Path, trainings: list[str]) -> None:
    before = files(run_cell(root, source, CELL, study_settings()))
    after = files(run_cell(root, source, CELL, study_settings("training.learning_rate_full=0.01")))
    assert trainings == ["fedavg", "fedavg"]
    assert before["identity"] != after["identity"]
    assert before["models.safetensors"] != after["models.safetensors"]


def test_the_same_cell_gives_the_same_bits_elsewhere(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, root: Path, source: Path
) -> None:
    cell = Cell("rated", "clean", 1, 1)
    there = study_root(tmp_path_factory, tmp_path / "elsewhere")
    torch.manual_seed(99)  # the global generator plays no part
    here = files(run_cell(root, source, cell, study_settings()))
    torch.manual_seed(7)
    assert files(run_cell(there, source, cell, study_settings())) == here


IDENTITY: dict[str, Callable[[], tuple[Cell, tuple[str, ...]]]] = {
    "method": lambda: (Cell("fedprox", "clean", 1, 1), ()),
    "scenario": lambda: (Cell("fedavg", "swapped-labels", 1, 1), ()),
    "split seed": lambda: (Cell("fedavg", "clean", 2, 1), ()),
    "training seed": lambda: (Cell("fedavg", "clean", 1, 2), ()),
    "steps": lambda: (CELL, ("training.steps=2",)),
    "rounds": lambda: (CELL, ("study.rounds=2",)),
    "rating": lambda: (CELL, ("rating.doubt=0.5",)),
    "merge": lambda: (CELL, ("merge.volume=sqrt",)),
    "package": lambda: (CELL, ("package.dtype=int8",)),
    "judge": lambda: (CELL, ("judge.tolerance=0.1",)),
    "proximal": lambda: (CELL, ("study.proximal=0.5",)),
    "server": lambda: (CELL, ("study.server.beta=0.4",)),
}


@pytest.mark.parametrize("change", IDENTITY)
def test_whatever_changes_the_training_changes_the_identity(root: Path, source: Path, change: str) -> None:
    cell, overrides = IDENTITY[change]()
    plain = cell_identity(root, source, CELL, study_settings())
    same = cell_identity(root, source, CELL, study_settings())
    other = cell_identity(root, source, cell, study_settings(*overrides))
    assert plain == same != other


def test_another_base_gives_another_identity(root: Path, source: Path) -> None:
    before = cell_identity(root, source, CELL, study_settings())
    record = root / "base" / "base.json"
    sha = next((root / "base").glob("*.safetensors"))
    sha.rename(sha.with_name(f"{'0' * 64}.safetensors"))
    record.write_text(record.read_text().replace(sha.stem, "0" * 64))
    after = cell_identity(root, source, CELL, study_settings())
    assert before != after


def test_changed_data_is_prepared_anew(root: Path, source: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(source, tmp_path / "own"))
    before = cell_identity(root, own, CELL, study_settings())
    path = min(own.rglob("*frame??.nii.gz"))
    image = nibabel.nifti1.Nifti1Image.from_filename(path)
    brighter = np.asanyarray(image.dataobj).copy()
    brighter[0, 0, 0] += 7
    nibabel.nifti1.Nifti1Image(brighter, image.affine, image.header).to_filename(path)
    after = cell_identity(root, own, CELL, study_settings())
    assert before != after


def test_without_a_base_there_is_no_cell(root: Path, source: Path) -> None:
    (root / "base" / "base.json").unlink()
    with pytest.raises(ConfigError, match="there is no base"):
        run_cell(root, source, CELL, study_settings())


def test_the_seeds_separate_split_and_training(root: Path, source: Path) -> None:
    def built(split: int, train: int) -> tuple[int, list[list[float]]]:
        trial, _ = build_trial(root, source, Cell("fedavg", "clean", split, train), study_settings())
        return trial.seed, [trial.members[s].train.images.flatten()[:500].tolist() for s in SITES]

    (seed, data), (seed_of_train, same_data) = built(1, 1), built(1, 2)
    (same_seed, data_of_split) = built(2, 1)
    assert data == same_data
    assert seed == same_seed
    assert seed != seed_of_train
    assert data != data_of_split


def test_no_patient_stands_on_two_sides(root: Path, source: Path) -> None:
    for split in (1, 2):
        trial, _ = build_trial(root, source, Cell("fedavg", "clean", split, 1), study_settings())
        for member in trial.members.values():
            train, test = (set(side.patient.tolist()) for side in (member.train, member.test))
            rates = set((member.panel.case // 2).tolist())
            assert train
            assert test
            assert rates
            assert not train & test | train & rates | test & rates


@pytest.mark.parametrize("method", ["rated", "fedce", "fedsa-lora"])
def test_a_cell_is_deaf_to_the_test_side(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, root: Path, source: Path, method: str
) -> None:
    cell, deaf = Cell(method, "clean", 1, 1), study_root(tmp_path_factory, tmp_path / "deaf")
    for side in deaf.glob("prepared/*/cohorts/*/*/test.npz"):
        with np.load(side) as stored:
            held = {name: np.zeros_like(stored[name]) for name in stored}
        np.savez(side, **held)
    plain = files(run_cell(root, source, cell, study_settings()))
    assert files(run_cell(deaf, source, cell, study_settings())) == plain


def test_a_cells_folder_gives_its_models_back_to_half_precision(root: Path, source: Path) -> None:
    trial, _ = build_trial(root, source, CELL, study_settings())
    trained = ALL["fedavg"].run(trial).models["global"]
    kept = read_models(run_cell(root, source, CELL, study_settings()))
    assert set(kept) == {"global"}
    assert all(torch.equal(kept["global"][name], W.half().float()) for name, W in trained.items())


def test_a_cells_tables_have_a_row_per_round_and_site(root: Path, source: Path) -> None:
    folder = run_cell(root, source, Cell("paper", "clean", 1, 1), study_settings("study.rounds=2"))
    rounds, gains = (pd.read_csv(folder / f"{name}.csv") for name in ("rounds", "gains"))
    assert rounds[["round", "site"]].to_numpy().tolist() == [[n, s] for n in (1, 2) for s in SITES]
    seen = gains[gains["aspect"] == "mean"].groupby(["round", "candidate"])["rater"].nunique()
    assert seen.tolist() == [4] * 10
    assert not (gains["candidate"] == gains["rater"]).any()
