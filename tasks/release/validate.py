"""The parts of models, and two models on every site's validation patients, on a machine that holds them all.

The test set stays closed: a gate that looked at it with every round would choose by it, and the card's test numbers
would no longer be a report.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from safetensors.torch import load
from torch import Tensor

from model.errors import IntegrityError, RoundError, UnreadableError
from tasks.adapt import predictor
from tasks.enrol import prepared_sites
from tasks.evaluate import evaluate_cases, load_cases
from tasks.files import sha256_bytes
from tasks.history import read_published
from tasks.records import Base, Close, Plan, Step, model_sha256
from tasks.release.paired import CANDIDATE, RELEASED
from tasks.release.records import Model
from tasks.weights import fold_steps
from tasks.workspace import Workspace


def round_records(ws: Workspace, number: int) -> tuple[Plan, Close]:
    """How a round was opened and closed, from the run's mirror.

    Args:
        ws: the run or the hub.
        number: of the round.

    Returns:
        Its plan and its close.

    Raises:
        SignatureError: a file's bytes are not those that its seal vouches for.
        RoundError: it has not closed, or failed, so that there is no model of it.
    """
    folder = ws.rounds / f"{number:04d}"
    plan, close = read_published(folder / "plan.json", Plan), read_published(folder / "close.json", Close)
    if plan is None or close is None:
        mend = "release a round that has closed and was versioned"
        raise RoundError(f"round {number} has not closed", str(folder), mend)
    if close.outcome == "failed":
        mend = "release an earlier round, or run this one again"
        raise RoundError(f"round {number} failed and has no model: {close.reason}", str(folder), mend)
    return plan, close


def model_of(base: Base, steps: tuple[Step, ...]) -> Model:
    """The name and the parts of a model."""
    return Model(sha256=model_sha256(base, steps), base=base, steps=steps)


def base_bytes(ws: Workspace, model: Model) -> bytes:
    """The file of a model's base.

    Args:
        ws: where it lies.
        model: which one.

    Returns:
        Its bytes, which have the base's hash.

    Raises:
        UnreadableError: it is not there.
        IntegrityError: it has another hash.
    """
    return _checked(ws.base_home / f"{model.base.sha256}.safetensors", model.base.sha256)


def step_bytes(ws: Workspace, step: Step) -> bytes:
    """The package of a published step, from the run's mirror; raises as :func:`base_bytes`."""
    return _checked(ws.rounds / f"{step.round:04d}" / "merged.safetensors", step.sha256)


def published_step(ws: Workspace, step: Step) -> bytes:
    """A step as it was published, encrypted, so that a release shows the store's operator no more than its round did.

    Args:
        ws: the run, its rounds versioned.
        step: which one.

    Returns:
        Its bytes in the versions' repository.

    Raises:
        UnreadableError: it is not there.
    """
    return _read(ws.versions / "rounds" / f"{step.round:04d}" / "merged.safetensors")


def weights_of(ws: Workspace, model: Model) -> dict[str, Tensor]:
    """State dict of base and chain."""
    return fold_steps(load(base_bytes(ws, model)), model.steps, lambda step: step_bytes(ws, step))


def validation_tables(
    ws: Workspace, cohort: Path, candidate: Model, released: Model
) -> dict[str, pd.DataFrame]:
    """Both models on the validation patients of every site whose data is prepared here.

    Args:
        ws: the run or the hub, with the parts of both models.
        cohort: parent of the prepared sites.
        candidate: the model that is to be released.
        released: the one in use.

    Returns:
        Site → what :func:`tasks.release.paired.paired_cells` reads; empty where no site's data lies here, as at a hub.
    """
    sites = prepared_sites(cohort)
    predict = {
        name: predictor(model.base.architecture, weights_of(ws, model))
        for name, model in ((CANDIDATE, candidate), (RELEASED, released))
        if sites
    }
    tables = {}
    for site in sites:
        cases = load_cases(cohort / site, "validation")
        rows = [
            evaluate_cases(predict[name], cases).assign(model=name, owner="", site=site) for name in predict
        ]
        if cases:
            tables[site] = pd.concat(rows, ignore_index=True)
    return tables


def _checked(path: Path, sha256: str) -> bytes:
    data = _read(path)
    if sha256_bytes(data) != sha256:
        raise IntegrityError(
            "not the published bytes", str(path), "remove its folder and version the round again"
        )
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        what = f"a part of the model cannot be read: {error.strerror}"
        raise UnreadableError(what, str(path), "version that round again: `cardiofed round retry`") from error
