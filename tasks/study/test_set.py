"""Open the test: every finished cell's models on the test patients, once, and a record that it was done."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from model.batches import steps_per_epoch
from model.factors import factorise, fold
from model.labels import N_CLASSES, STRUCTURES
from model.scoring import segment
from model.seeds import derive_seed
from tasks.cases import read_cases
from tasks.files import json_bytes, sha256_bytes, write_atomic
from tasks.personal import keep_helpful
from tasks.settings import Params
from tasks.slices import Slices
from tasks.study.cell import Cell, Weights
from tasks.study.cohorts import study_cohort
from tasks.study.local import train_adapter, train_weights
from tasks.study.methods import ALL
from tasks.study.run import build_trial, read_models
from tasks.study.scenarios import SCENARIOS
from tasks.study.trial import Trial
from tasks.study.version import cell_version

RECORD = "test_opened.json"


def open_test(root: Path, source: Path, cell: Cell, params: Params) -> Path:
    """Evaluate one finished cell on the test patients, unless that was done.

    In the clean federation the sites first adapt the global model for one epoch, where the method knows how.

    Args:
        root: folder of the study.
        source: the data set the cell was trained on.
        cell: finished.
        params: as the cell was trained with.

    Returns:
        ``test.csv`` in the cell's folder: a row per model and patient, Dice over ED and ES on the network's grid.
    """
    folder = root / "cells" / cell.name
    identity = (folder / "identity").read_text()
    out, mark = folder / "test.csv", folder / "test.identity"
    if mark.exists() and mark.read_text() == identity and out.exists():
        return out
    trial, _ = build_trial(root, source, cell, params)
    models = read_models(folder)
    if cell.scenario == "clean" and "global" in models:
        models |= _adapted(trial, models["global"], ALL[cell.method].adapts)
    keys = _keys(root, source, cell, trial.params)
    rows = [row for owner, weights in models.items() for row in _evaluate(trial, owner, weights, keys)]
    columns = {"method": cell.method, "scenario": cell.scenario}
    seeds = {"split_seed": cell.split_seed, "train_seed": cell.train_seed}
    table = pd.DataFrame(rows).assign(**columns, **seeds)
    write_atomic(out, table.to_csv(index=False, float_format="%.6g").encode())
    write_atomic(mark, identity.encode())
    return out


def record_opening(root: Path, cells: list[Cell]) -> None:
    """Write down that the test was opened, when, for which cells and with which code; earlier openings stay."""
    path = root / RECORD
    earlier = json.loads(path.read_bytes()) if path.exists() else []
    opened = {
        "opened": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_version": cell_version(),
        "cells": sorted(cell.name for cell in cells),
    }
    write_atomic(path, json_bytes([*earlier, opened]))


def patient_dice(predicted: Tensor, slices: Slices) -> dict[int, list[float]]:
    """Dice per patient and structure.

    Args:
        predicted: labels ``(N, Y, X)`` of all the slices.
        slices: the truth, and which slice belongs to which patient and phase.

    Returns:
        Patient → mean over ED and ES of the volume's Dice, in the order of the labels; NaN where neither the
        truth nor the answer has the structure.
    """
    found: dict[int, list[float]] = {}
    for patient in sorted(set(slices.patient.tolist())):
        phases = []
        for phase in (0, 1):
            here = (slices.patient == patient) & (slices.phase == phase)
            p, t = predicted[here], slices.masks[here]
            phases.append([_dice(p == label, t == label) for label in range(1, N_CLASSES)])
        found[patient] = torch.tensor(phases).nanmean(0).tolist()
    return found


def _dice(p: Tensor, t: Tensor) -> float:
    size = int(p.sum() + t.sum())
    return 2 * int((p & t).sum()) / size if size else float("nan")


def _adapted(trial: Trial, weights: Weights, how: str) -> dict[str, Weights]:
    params, adapted = trial.params, {}
    for site in trial.sites if how else ():
        train = trial.members[site].train
        steps = params.adapt.epochs * steps_per_epoch(len(train.z), params.training.batch)
        seed = derive_seed(trial.seed, site, "adapt")
        if how == "full":
            trained = train_weights(params, train, weights, steps, seed)
            update = {name: factorise(W - weights[name], W.shape[0])[0] for name, W in trained.items()}
        else:
            update = train_adapter(params, train, weights, trial.spec(site), steps, seed)
        kept, _ = keep_helpful(weights, update, partial(_mean_dice, trial, site))
        adapted[site] = fold(weights, kept)
    return adapted


def _mean_dice(trial: Trial, site: str, weights: Weights) -> float:
    return float(trial.validate(weights, site).nanmean(1).nanmean())


def _evaluate(
    trial: Trial, owner: str, weights: Weights, keys: dict[tuple[str, int], str]
) -> list[dict[str, object]]:
    trial.net.load_state_dict(weights)
    rows: list[dict[str, object]] = []
    for site, member in trial.members.items():
        predicted = segment(trial.net, member.test.images).argmax(1)
        for patient, by_structure in patient_dice(predicted, member.test).items():
            row: dict[str, object] = {
                "model": "global" if owner == "global" else "personal",
                "owner": "" if owner == "global" else owner,
                "site": site,
                "honest": not member.attacker,
                "patient": patient,
                "patient_key": keys[site, patient],
                "dice": sum(by_structure) / len(by_structure),
            }
            names = (f"dice_{name.lower()}" for name in STRUCTURES)
            rows.append(row | dict(zip(names, by_structure, strict=True)))
    return rows


def _keys(root: Path, source: Path, cell: Cell, params: Params) -> dict[tuple[str, int], str]:
    """An opaque name per patient that is the same under every split."""
    home = study_cohort(root, source, SCENARIOS[cell.scenario].partition, cell.split_seed, params)
    return {
        (folder.name, int(row.patient.removeprefix("p"))): sha256_bytes(Path(row.image).parent.name.encode())[
            :8
        ]
        for folder in home.iterdir()
        if folder.is_dir()
        for row in read_cases(folder)
    }
