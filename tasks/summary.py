"""The numbers of a report: which model is how good, for whom, how surely, and at what cost in bytes.

A case is one patient × phase × structure. Means over cases are taken per site first and then over sites, so
that a large hospital does not speak for a small one. What is undefined is counted beside every mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model.errors import DataError
from model.labels import STRUCTURES
from tasks.history import RoundHistory, full_bytes, round_status, traffic

MODELS = ("zero-shot", "global", "personal", "local", "fedavg")
TEXT = ("model", "owner", "site", "patient", "group", "phase", "structure")
NUMBERS = ("dice", "voe", "hd_mm", "hd95_mm", "assd_mm", "pred_ml", "true_ml")
RESAMPLES = 2000

View = Literal["all", "in", "cross"]


@dataclass(frozen=True)
class Interval:
    """How much better one model is than another, in Dice.

    Attributes:
        difference: mean over sites of the mean over patients; NaN without a common patient.
        low: 2.5 % bound of the bootstrap.
        high: 97.5 % bound.
        patients: patients with a defined Dice under both models.
        left_out: patients who lack it under one of them.
    """

    difference: float
    low: float
    high: float
    patients: int
    left_out: int

    @property
    def verdict(self) -> Literal["better", "worse", "unclear"]:
        """Whether the interval lies on one side of zero."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "unclear"


def read_cases(path: Path) -> pd.DataFrame | None:
    """Read the evaluation's case table.

    Args:
        path: of ``cases.csv``.

    Returns:
        A row per model, owner, site, patient, phase and structure, undefined numbers as NaN; None while there
        is no file.

    Raises:
        DataError: columns are missing.
    """
    if not path.is_file():
        return None
    text = dict.fromkeys((*TEXT, "vendor", "centre"), str)
    numbers = [name for name in pd.read_csv(path, nrows=0).columns if name not in text]
    undefined = {name: ["", "nan"] for name in numbers}
    cases = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=undefined)
    missing = [name for name in TEXT + NUMBERS if name not in cases]
    if missing:
        raise DataError(f"no column {', '.join(missing)}", str(path), "evaluate again")
    return cases


def model_table(cases: pd.DataFrame) -> pd.DataFrame:
    """One row per model, in the order base, global, personal, local, FedAvg.

    Args:
        cases: the case table.

    Returns:
        Index model; columns ``dice`` (all test cases), ``in_client``, ``cross_client``, ``RV``, ``MYO``,
        ``LV``, ``hd95_mm`` (all test cases), ``patients``, ``cases``, ``undefined_dice``, ``undefined_hd95``.
        In-client is a site's model on its own test cases, cross-client on the others'; a model that no site
        owns has both equal.
    """
    rows = {model: _model_row(cases[cases["model"] == model]) for model in ordered_models(cases)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def ordered_models(rows: pd.DataFrame) -> list[str]:
    """The models of a table, the known ones in the order base, global, personal, local, FedAvg."""
    found = {str(model) for model in rows["model"]}
    return [model for model in MODELS if model in found] + sorted(found - set(MODELS))


def view_of(rows: pd.DataFrame, view: View) -> pd.DataFrame:
    """Rows in which a site's own model meets own patients (``in``) or others' (``cross``); shared models in both."""
    if view == "all":
        return rows
    unowned, own = rows["owner"] == "", rows["owner"] == rows["site"]
    return rows[unowned | (own if view == "in" else ~own)]


def site_matrix(cases: pd.DataFrame, model: str) -> pd.DataFrame:
    """Mean Dice of every owner's model (rows) on every site's test cases (columns); NaN where undefined."""
    rows = cases[cases["model"] == model]
    return rows.pivot_table(index="owner", columns="site", values="dice", aggfunc="mean", dropna=False)


def site_matrices(cases: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The matrices of the models that sites own, by title; only those with something in them."""
    titles = {"personal": "Adapted at the site", "local": "Trained alone"}
    matrices = {title: site_matrix(cases, model) for model, title in titles.items()}
    return {title: matrix for title, matrix in matrices.items() if matrix.notna().to_numpy().any()}


def gain_table(cases: pd.DataFrame) -> pd.DataFrame:
    """What the federation gave each site: the global model against the base as shipped.

    Args:
        cases: the case table.

    Returns:
        Index site; columns ``zero_shot``, ``global``, ``gain`` (mean over patients in both), ``patients``,
        ``improved`` (patients with a higher Dice).
    """
    pairs = _paired(cases, "global", "zero-shot", "all").dropna()
    pairs["gain"] = pairs["a"] - pairs["b"]
    by_site = pairs.groupby(level="site")
    means = by_site.mean().rename(columns={"a": "global", "b": "zero_shot"})
    means["patients"] = by_site.size()
    means["improved"] = (pairs["gain"] > 0).groupby(level="site").sum()
    return means[["zero_shot", "global", "gain", "patients", "improved"]]


def paired_interval(
    cases: pd.DataFrame, a: str, b: str, rng: np.random.Generator, view: View = "all"
) -> Interval:
    """95 % percentile bootstrap of ``Dice(a) − Dice(b)``, paired by patient.

    Patients are drawn with replacement from the whole federation, each weighted by ``1 / n_site`` so that
    sites count alike; drawing within sites would see no spread at a site with one test patient.

    Args:
        cases: the case table.
        a: a model.
        b: the model it is compared with.
        rng: draws the patients.
        view: ``in`` compares on own test cases, ``cross`` on the others', ``all`` on both.

    Returns:
        Mean difference and its bounds, NaN when no patient has a defined Dice under both models; the counts.
    """
    pairs = _paired(cases, a, b, view)
    defined = pairs.dropna()
    if defined.empty:
        return Interval(math.nan, math.nan, math.nan, 0, len(pairs))
    differences = (defined["a"] - defined["b"]).to_numpy()
    sizes = defined.groupby(level="site")["a"].transform("size").to_numpy()
    low, high = _bootstrap(differences, 1.0 / sizes, rng)
    mean = float(np.average(differences, weights=1.0 / sizes))
    return Interval(mean, low, high, len(defined), len(pairs) - len(defined))


def metrics(cases: pd.DataFrame | None, history: Sequence[RoundHistory]) -> dict[str, float | int | None]:
    """Flat numbers for ``dvc metrics show``; an undefined one is None, and undefined cases are counted."""
    numbers = _round_metrics(history) | _byte_metrics(history)
    if cases is None:
        return numbers
    for model, row in model_table(cases).iterrows():
        name = str(model).replace("-", "_")
        for column in ("dice", "in_client", "cross_client", "hd95_mm"):
            numbers[f"{name}_{column}"] = float(row[column]) if math.isfinite(row[column]) else None
        for column in ("undefined_dice", "undefined_hd95"):
            numbers[f"{name}_{column}"] = int(row[column])
    return numbers


def bytes_ratio(history: Sequence[RoundHistory]) -> float | None:
    """Full weights' size over the mean uploaded adapter's; None before the first upload."""
    return _ratio(full_bytes(history), _mean(_sent(history)))


def download_bytes(history: Sequence[RoundHistory]) -> float | None:
    """Mean of what a site that takes part downloads per round: the others' updates and the step; None before any."""
    moved = [t.received for sites in traffic(history).values() for t in sites.values() if t.received]
    return _mean(moved)


def _mean_of_sites(rows: pd.DataFrame, value: str) -> float:
    """Mean over sites of the mean over owners of the mean over cases; NaN when nothing is defined."""
    cells = rows.groupby(["owner", "site"])[value].mean()
    return float(cells.groupby(level="site").mean().mean())


def _model_row(rows: pd.DataFrame) -> dict[str, float | int]:
    structures = {name: _mean_of_sites(rows[rows["structure"] == name], "dice") for name in STRUCTURES}
    return {
        "dice": _mean_of_sites(rows, "dice"),
        "in_client": _mean_of_sites(view_of(rows, "in"), "dice"),
        "cross_client": _mean_of_sites(view_of(rows, "cross"), "dice"),
        **structures,
        "hd95_mm": _mean_of_sites(rows, "hd95_mm"),
        "patients": len(rows.drop_duplicates(["site", "patient"])),
        "cases": len(rows),
        "undefined_dice": int(rows["dice"].isna().sum()),
        "undefined_hd95": int(rows["hd95_mm"].isna().sum()),
    }


def _paired(cases: pd.DataFrame, a: str, b: str, view: View) -> pd.DataFrame:
    """Patient means of two models, index (site, patient), columns a and b; NaN where undefined."""
    sides = {}
    for side, model in (("a", a), ("b", b)):
        rows = view_of(cases[cases["model"] == model], view)
        sides[side] = rows.groupby(["site", "patient"])["dice"].mean()
    return pd.DataFrame(sides)


def _bootstrap(
    values: NDArray[np.float64], weights: NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, float]:
    drawn = rng.integers(0, len(values), size=(RESAMPLES, len(values)))
    means = (values[drawn] * weights[drawn]).sum(axis=1) / weights[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _round_metrics(history: Sequence[RoundHistory]) -> dict[str, float | int | None]:
    closed = [entry.close for entry in history if entry.close]
    return {
        "rounds": len(closed),
        "rounds_not_complete": sum(not round_status(entry).good for entry in history),
        "updates_quarantined": sum(len(e.candidates.quarantined) for e in history if e.candidates),
    }


def _byte_metrics(history: Sequence[RoundHistory]) -> dict[str, float | int | None]:
    up, down, full = _mean(_sent(history)), download_bytes(history), full_bytes(history)
    return {
        "bytes_per_site_and_round": None if up is None else round(up),
        "bytes_down_per_site_and_round": None if down is None else round(down),
        "bytes_full_weights": full,
        "bytes_ratio": bytes_ratio(history),
        "bytes_down_ratio": _ratio(full, down),
    }


def _sent(history: Sequence[RoundHistory]) -> list[int]:
    return [update.adapter_bytes for entry in history for update in entry.updates.values()]


def _mean(sizes: Sequence[int]) -> float | None:
    return float(np.mean(sizes)) if sizes else None


def _ratio(full: int | None, part: float | None) -> float | None:
    return full / part if full and part else None
