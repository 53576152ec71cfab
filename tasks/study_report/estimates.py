"""Means over seeds, sites and patients with their intervals, and paired differences of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from model.statistics import RESAMPLES, mean_sd, nested_weights, paired_bootstrap, sd_between
from tasks.study_report.rows import SEEDS, View, patients_of

ROUNDING = 1e-9
"""Slack of comparisons with a threshold."""


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn.

    Attributes:
        seed: of every interval's own generator, so that an interval does not depend on the others' order.
        resamples: number of draws.
    """

    seed: int = 0
    resamples: int = RESAMPLES


BOOTSTRAP = Bootstrap()
"""The study's own."""


@dataclass(frozen=True)
class Estimate:
    """A mean Dice, or a mean difference of two, with its 95 % interval.

    Attributes:
        mean: NaN without a patient.
        low: 2.5 % bound.
        high: 97.5 % bound.
        seeds: pairs of seeds in it.
        patients: distinct test patients in it; without ``patient_key`` a patient counts once per split.
        left_out: rows (a patient under one seed) that lack a defined Dice, on one side at least.
    """

    mean: float
    low: float
    high: float
    seeds: int
    patients: int
    left_out: int


def estimate(patients: pd.DataFrame, bootstrap: Bootstrap) -> Estimate:
    """Mean over seeds, sites and patients, with its interval.

    Args:
        patients: of ``patients_of`` or ``paired``; drawn within their places, or all together when a unit changes
            its place with the split.
        bootstrap: how the interval is drawn.

    Returns:
        The mean over the defined rows; NaN when there are none.
    """
    defined = patients.dropna(subset=["value"]).reset_index()
    seeds = list(zip(defined["split_seed"], defined["train_seed"], strict=True))
    units, places = defined["unit"].tolist(), defined["place"].tolist()
    stay = len(set(zip(units, places, strict=True))) == len(set(units))
    mean, low, high = paired_bootstrap(
        defined["value"].to_numpy(dtype=np.float64),
        units,
        places if stay else ["all"] * len(units),
        np.random.default_rng(bootstrap.seed),
        nested_weights(seeds, defined["site"].tolist()),
        bootstrap.resamples,
    )
    return Estimate(mean, low, high, len(set(seeds)), len(set(units)), len(patients) - len(defined))


def paired(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """``a − b`` per patient and seed, for all of ``a`` under seeds that ``b`` has too; NaN without a partner."""
    known = set(seeds_of(b))
    kept = a[np.array([seeds in known for seeds in seeds_of(a)], dtype=np.bool_)]
    return kept.assign(value=kept["value"] - b["value"].reindex(kept.index))


def compare(
    rows: pd.DataFrame, a: tuple[str, str, View], b: tuple[str, str, View], bootstrap: Bootstrap
) -> Estimate:
    """``a − b``, each a method, scenario and view."""
    return estimate(paired(patients_of(rows, *a), patients_of(rows, *b)), bootstrap)


def spread(patients: pd.DataFrame, name: str) -> dict[str, object]:
    """Mean and standard deviation over seeds, under ``name`` and ``name_sd``."""
    mean, sd = mean_sd(seed_means(patients).tolist())
    return {name: mean, f"{name}_sd": sd}


def between(patients: pd.DataFrame) -> tuple[float, float]:
    """Standard deviation over splits alone, and over training seeds alone."""
    means = seed_means(patients)
    splits, trainings = (means.index.get_level_values(level).tolist() for level in SEEDS)
    return sd_between(means.tolist(), splits, trainings)


def seed_means(patients: pd.DataFrame) -> pd.Series[float]:
    """Index split seed, training seed: mean over sites of the mean over patients."""
    sites = patients.dropna(subset=["value"]).groupby([*SEEDS, "site"])["value"].mean()
    return sites.groupby(level=SEEDS).mean()


def seeds_of(patients: pd.DataFrame) -> list[tuple[object, object]]:
    """Split and training seed of every row of ``patients_of``."""
    return [(split, training) for split, training, _ in patients.index.tolist()]
