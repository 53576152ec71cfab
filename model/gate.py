"""Is a new model worse than the one in use for a group of patients, beyond what these patients can say?"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.errors import DataError
from model.statistics import paired_bootstrap

Floats = NDArray[np.float64]
Verdict = Literal["worse", "not worse", "not decidable"]
RESAMPLES = 4000


@dataclass(frozen=True)
class Comparison:
    """New against released on the same patients.

    Attributes:
        patients: with a value under both.
        released: mean over them; for a bias, its size.
        candidate: likewise.
        difference: candidate − released.
        low: bound of the difference's 95 % interval; NaN where none is given.
        high: likewise.
        verdict: *worse* when the whole interval lies on the harmful side of zero.
    """

    patients: int
    released: float
    candidate: float
    difference: float
    low: float
    high: float
    verdict: Verdict


def compare_means(
    candidate: Floats,
    released: Floats,
    sites: Sequence[Hashable],
    rng: np.random.Generator,
    fewest: int,
    higher_is_better: bool,
) -> Comparison:
    """Paired bootstrap of the mean difference over patients, drawn within sites.

    Args:
        candidate: ``(n,)`` finite, one value per patient.
        released: ``(n,)`` of the same patients in the same order.
        sites: ``(n,)`` whose patients they are.
        rng: draws the patients.
        fewest: patients below which nothing is decided and no interval given.
        higher_is_better: True for overlap, False for distances.

    Returns:
        The comparison; *not decidable* below ``fewest``.

    Raises:
        DataError: lengths differ, or a value is not finite.
    """
    _require_pairs(candidate, released)
    n, differences = len(candidate), candidate - released
    means = (_mean(released), _mean(candidate), _mean(differences))
    if n < fewest:
        return Comparison(n, *means, math.nan, math.nan, "not decidable")
    _, low, high = paired_bootstrap(differences, list(range(n)), sites, rng, resamples=RESAMPLES)
    worse = high < 0 if higher_is_better else low > 0
    return Comparison(n, *means, low, high, "worse" if worse else "not worse")


def compare_bias(candidate: Floats, released: Floats, rng: np.random.Generator, fewest: int) -> Comparison:
    """Paired bootstrap of the difference in size of two biases, ``|mean(candidate)| − |mean(released)|``.

    Both means are redrawn over the same patients, their distance from the observed ones stretched by
    ``√(n / (n − 1))`` as in :func:`model.statistics.paired_bootstrap`.

    Args:
        candidate: ``(n,)`` finite signed errors against the reference, one per patient.
        released: ``(n,)`` of the same patients in the same order.
        rng: draws the patients.
        fewest: patients below which nothing is decided and no interval given.

    Returns:
        The comparison; *not decidable* below ``fewest``.

    Raises:
        DataError: lengths differ, or a value is not finite.
    """
    _require_pairs(candidate, released)
    n = len(candidate)
    sizes = (abs(_mean(released)), abs(_mean(candidate)))
    difference = sizes[1] - sizes[0]
    if n < fewest:
        return Comparison(n, *sizes, difference, math.nan, math.nan, "not decidable")
    counts = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    drawn = [
        np.abs(x.mean() + math.sqrt(n / (n - 1)) * (counts @ x - x.mean())) for x in (candidate, released)
    ]
    low, high = (float(bound) for bound in np.quantile(drawn[0] - drawn[1], (0.025, 0.975)))
    return Comparison(n, *sizes, difference, low, high, "worse" if low > 0 else "not worse")


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _require_pairs(candidate: Floats, released: Floats) -> None:
    if candidate.shape != released.shape:
        raise DataError(
            f"{len(candidate)} values against {len(released)}", "release gate", "compare the same patients"
        )
    if not (np.isfinite(candidate).all() and np.isfinite(released).all()):
        raise DataError("a value is not finite", "release gate", "leave undefined ones out and count them")
