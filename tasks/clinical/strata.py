"""Segmentation by structure, phase, slice level, pathology, vendor and site, with n and intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from model.labels import STRUCTURES
from model.levels import LEVELS
from model.statistics import paired_bootstrap
from tasks.clinical.agree import FEWEST
from tasks.evaluate import METRICS
from tasks.summary import ordered_models, view_of

RESAMPLES = 2000
PHASES = ("ED", "ES")
KINDS = ("all", "level", "group", "vendor", "site")
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Cell:
    """One metric over the patients of a stratum.

    Attributes:
        patients: with a defined value.
        cases: patient × phase × structure, defined or not.
        undefined: cases without a value.
        mean: over patients, each the mean of its cases; NaN without any.
        low: bound of the 95 % interval; NaN below ``FEWEST`` patients.
        high: likewise.
    """

    patients: int
    cases: int
    undefined: int
    mean: float
    low: float
    high: float


def cell_of(rows: pd.DataFrame, column: str, seed: int) -> Cell:
    """Mean of one column over patients, with a bootstrap over patients, drawn within sites.

    Args:
        rows: of one model: site, patient and the column, a row per case.
        column: the metric.
        seed: the same gives the same interval.

    Returns:
        The mean with its interval and counts.
    """
    values = rows.groupby(["site", "patient"])[column].mean().dropna()
    undefined = int(rows[column].isna().sum())
    if len(values) < FEWEST:
        mean = float(values.mean()) if len(values) else math.nan
        return Cell(len(values), len(rows), undefined, mean, math.nan, math.nan)
    sites = [str(site) for site, _ in values.index]
    rng = np.random.default_rng(seed)
    found = paired_bootstrap(values.to_numpy(float), list(values.index), sites, rng, resamples=RESAMPLES)
    return Cell(len(values), len(rows), undefined, *found)


def members_of(rows: pd.DataFrame, kind: str) -> dict[str, pd.DataFrame]:
    """The strata of one kind: name → its rows.

    Args:
        rows: of the case table.
        kind: one of ``KINDS``; slice levels share their rows and differ in the columns.

    Returns:
        In alphabetical order; empty when the table does not have that column, or nobody stated it.
    """
    if kind == "all":
        return {"all patients": rows}
    if kind == "level":
        return dict.fromkeys((name for name in LEVELS if f"dice_{name}" in rows), rows)
    if kind not in rows or not (rows[kind] != "").any():
        return {}
    return {str(name) or NOT_STATED: part for name, part in rows.groupby(kind, sort=True)}


def column_of(metric: str, kind: str, stratum: str) -> str:
    """The case table's column that holds a metric for a stratum."""
    return f"{metric}_{stratum}" if kind == "level" else metric


def stratum_table(cases: pd.DataFrame, seed: int, models: Sequence[str] = ()) -> pd.DataFrame:
    """Every metric in every stratum, by structure and phase.

    Args:
        cases: the case table; models that sites own are judged on own patients.
        seed: of the intervals.
        models: only these; all when empty.

    Returns:
        Columns model, kind, stratum, phase (ED, ES, both), structure, metric, patients, cases, undefined, mean,
        low, high.
    """
    own = view_of(cases, "in")
    chosen = [model for model in ordered_models(own) if not models or model in models]
    lines = [
        {"model": model, **place, "metric": metric, **vars(cell_of(rows, column, seed))}
        for model in chosen
        for place, rows in _cells(own[own["model"] == model])
        for metric in METRICS
        if (column := column_of(metric, place["kind"], place["stratum"])) in rows
    ]
    return pd.DataFrame(lines)


def _cells(rows: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    for kind in KINDS:
        for stratum, part in members_of(rows, kind).items():
            for phase in (*PHASES, "both"):
                in_phase = part if phase == "both" else part[part["phase"] == phase]
                for structure in STRUCTURES:
                    place = {"kind": kind, "stratum": stratum, "phase": phase, "structure": structure}
                    yield place, in_phase[in_phase["structure"] == structure]
