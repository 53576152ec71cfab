"""Open the test: every finished cell's models on the test patients, once, and a record of every opening.

Patients go by keys that are the same under every split: a keyed hash of their folder's name, whose random salt never
leaves the study's folder. Without the salt nobody can try names against the keys.
"""

from __future__ import annotations

import hmac
import json
import secrets
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
from tasks.study.choices import ALL
from tasks.study.cohorts import study_cohort
from tasks.study.local import train_weights
from tasks.study.run import build_trial, prepared, read_models
from tasks.study.scenarios import SCENARIOS
from tasks.study.trial import Trial
from tasks.study.version import test_version

RECORD = "test_opened.json"
SALT = "salt"


def open_test(root: Path, source: Path, cell: Cell, params: Params) -> Path:
    """Evaluate one finished cell on the test patients, unless that was done.

    In the clean federation the sites first adapt the global model, where the method knows how. The answer stays valid
    until the cell is trained anew, or the settings of adaptation, the salt, or the code of this file change.

    Args:
        root: folder of the study.
        source: the data set the cell was trained on.
        cell: finished.
        params: as the cell was trained with.

    Returns:
        ``tests/CELL.csv``: a row per model and patient. Dice is a volume's on the network's grid, mean
        over ED and ES and then over the structures that are defined, see :func:`patient_dice`; the columns of the
        single structures are empty where one is not, so that they can be counted.
    """
    folder, out, mark = root / "cells" / cell.name, root / "tests" / f"{cell.name}.csv", _mark(root, cell)
    identity = _test_identity(root, cell, params)
    if mark.exists() and mark.read_text() == identity and out.exists():
        return out
    trial, _ = build_trial(root, source, cell, params)
    models = read_models(folder)
    if _adapts(cell, params) and "global" in models:
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
    """Write down which cells the test was newly opened for, when and with which code; earlier openings stay.

    A cell is in the record once for every identity it was evaluated under. Where all are, nothing is written, so that
    the entries count openings, not reports. What an interrupted report evaluated, the next one records.

    Args:
        root: folder of the study; ``test_opened.json`` in it is the record.
        cells: those that may have been evaluated.
    """
    path = root / RECORD
    earlier = json.loads(path.read_bytes()) if path.exists() else []
    known = {opened for entry in earlier for opened in entry["cells"].items()}
    marks = {cell.name: _mark(root, cell) for cell in cells}
    found = {name: mark.read_text() for name, mark in marks.items() if mark.exists()}
    fresh = {name: identity for name, identity in found.items() if (name, identity) not in known}
    if not fresh:
        return
    opened = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"opened": opened, "code_version": test_version(), "cells": fresh}
    write_atomic(path, json_bytes([*earlier, entry]))


def _mark(root: Path, cell: Cell) -> Path:
    """Holds the identity that a cell's test table was made under; beside the cells, whose hashes DVC keeps."""
    return root / "tests" / f"{cell.name}.identity"


def patient_dice(predicted: Tensor, slices: Slices) -> dict[int, list[float]]:
    """Dice per patient and structure.

    Args:
        predicted: labels ``(N, Y, X)`` of all the slices.
        slices: the truth, and which slice belongs to which patient and phase.

    Returns:
        Patient → mean over ED and ES of the volume's Dice, in the order of the labels; NaN where neither the
        truth nor the answer has the structure, in both phases. A structure that the truth has and the answer lacks,
        or that the answer invents, counts 0.
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


def mean_of_defined(by_structure: list[float]) -> float:
    """Mean over the structures that are defined; NaN without any.

    Leaving the whole patient out instead would take them from every paired comparison, also with a method that is
    rightly charged for a structure it invented.
    """
    return float(torch.tensor(by_structure, dtype=torch.float64).nanmean())


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
            update = trial.train(site, weights, steps, seed)
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
                "dice": mean_of_defined(by_structure),
            }
            names = (f"dice_{name.lower()}" for name in STRUCTURES)
            rows.append(row | dict(zip(names, by_structure, strict=True)))
    return rows


def _keys(root: Path, source: Path, cell: Cell, params: Params) -> dict[tuple[str, int], str]:
    """An opaque name per patient that is the same under every split."""
    home = study_cohort(
        prepared(root, source), source, SCENARIOS[cell.scenario].partition, cell.split_seed, params
    )
    salt = _salt(root)
    return {
        (folder.name, int(row.patient.removeprefix("p"))): _key(salt, Path(row.image).parent.name)
        for folder in home.iterdir()
        if folder.is_dir()
        for row in read_cases(folder)
    }


def _key(salt: bytes, name: str) -> str:
    return hmac.new(salt, name.encode(errors="surrogateescape"), "sha256").hexdigest()[:12]


def _salt(root: Path) -> bytes:
    """Random, made on first use, readable by the owner alone; without it the keys cannot be made again."""
    path = root / SALT
    if not path.exists():
        write_atomic(path, secrets.token_hex(32).encode(), mode=0o600)
    return path.read_bytes()


def _adapts(cell: Cell, params: Params) -> bool:
    return cell.scenario == "clean" and cell.method in params.study.adapted


def _test_identity(root: Path, cell: Cell, params: Params) -> str:
    """What determines a cell's test table: its training, the adaptation, the keys, and the code that evaluates."""
    adaptation = f"{params.adapt}" if _adapts(cell, params) else ""
    parts = [(root / "cells" / cell.name / "identity").read_bytes(), adaptation.encode(), _salt(root)]
    return sha256_bytes("/".join(map(sha256_bytes, [*parts, test_version().encode()])).encode())
