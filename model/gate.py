"""Is a new model worse than the one in use for a group of patients, beyond what these patients can say?

All it needs of the patients are sums, so that hospitals can tell theirs without telling of anybody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from model.errors import DataError

Floats = NDArray[np.float64]
Verdict = Literal["worse", "not worse", "not decidable"]
Goal = Literal["higher", "lower", "small"]
"""What is better: a higher mean, a lower one, or one that is nearer to zero."""


@dataclass(frozen=True)
class Pairs:
    """New and released model on the same n patients.

    Attributes:
        n: patients with a value under both.
        released: mean; NaN of none, as the others.
        candidate: likewise.
        released_sd: standard deviation over patients, n − 1 in the denominator; 0 of one patient.
        candidate_sd: likewise.
        difference_sd: of candidate − released; from the three their covariance follows.
    """

    n: int
    released: float
    candidate: float
    released_sd: float
    candidate_sd: float
    difference_sd: float


NO_PAIRS = Pairs(0, math.nan, math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Comparison:
    """New against released.

    Attributes:
        difference: candidate − released; of what shall be small, of the sizes of both means.
        low: bound of its 95 % interval; NaN where none is given.
        high: likewise.
        verdict: *worse* when the whole interval lies on the harmful side of zero.
    """

    difference: float
    low: float
    high: float
    verdict: Verdict


def pairs_of(candidate: Floats, released: Floats) -> Pairs:
    """Sum up two models' values.

    Args:
        candidate: ``(n,)`` finite, one value per patient.
        released: ``(n,)`` of the same patients in the same order.

    Returns:
        Means and standard deviations.

    Raises:
        DataError: lengths differ, or a value is not finite.
    """
    if candidate.shape != released.shape:
        raise DataError(
            f"{len(candidate)} values against {len(released)}", "release gate", "compare the same patients"
        )
    if not (np.isfinite(candidate).all() and np.isfinite(released).all()):
        raise DataError("a value is not finite", "release gate", "leave undefined ones out and count them")
    if not len(candidate):
        return NO_PAIRS
    spread = (_sd(x) for x in (released, candidate, candidate - released))
    return Pairs(len(candidate), float(released.mean()), float(candidate.mean()), *spread)


def pool(parts: Sequence[Pairs]) -> Pairs:
    """The sums over all patients of several hospitals, as if their values lay side by side.

    ``M = Σ nᵢ mᵢ / N`` and ``s² = Σ ((nᵢ − 1) sᵢ² + nᵢ (mᵢ − M)²) / (N − 1)``, for each model and for the difference.

    Args:
        parts: of disjoint patients.

    Returns:
        The same numbers as :func:`pairs_of` gives of all values at once, up to rounding.
    """
    some = [part for part in parts if part.n]
    if not some:
        return NO_PAIRS
    n = np.array([part.n for part in some], dtype=np.float64)
    released, candidate = (np.array([getattr(p, name) for p in some]) for name in ("released", "candidate"))
    spread = (
        _pooled_sd(n, means, np.array([getattr(part, name) for part in some]))
        for name, means in (
            ("released_sd", released),
            ("candidate_sd", candidate),
            ("difference_sd", candidate - released),
        )
    )
    total = n.sum()
    return Pairs(int(total), float(n @ released / total), float(n @ candidate / total), *spread)


def compare(pairs: Pairs, goal: Goal, fewest: int) -> Comparison:
    """Student's interval of the paired difference, ``d ± t(0.975, n − 1) · s / √n``.

    Where the mean shall be small, d = \\|candidate\\| − \\|released\\| and s is that of the values turned to a positive
    mean; a bias may change its sign without harm.

    Args:
        pairs: of one metric in one stratum.
        goal: what is better.
        fewest: patients below which nothing is decided and no interval given.

    Returns:
        The comparison; *not decidable* below ``fewest``.
    """
    difference, sd = pairs.candidate - pairs.released, pairs.difference_sd
    if goal == "small":
        difference = abs(pairs.candidate) - abs(pairs.released)
        if pairs.candidate * pairs.released < 0:  # one is turned round: s² of the sum
            sd = math.sqrt(max(0.0, 2 * pairs.candidate_sd**2 + 2 * pairs.released_sd**2 - sd**2))
    if pairs.n < max(fewest, 2):
        return Comparison(difference, math.nan, math.nan, "not decidable")
    half = float(stats.t.ppf(0.975, pairs.n - 1)) * sd / math.sqrt(pairs.n)
    low, high = difference - half, difference + half
    worse = high < 0 if goal == "higher" else low > 0
    return Comparison(difference, low, high, "worse" if worse else "not worse")


def _sd(values: Floats) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _pooled_sd(n: Floats, means: Floats, sds: Floats) -> float:
    total = n.sum()
    if total < 2:
        return 0.0
    within, between = (n - 1) @ sds**2, n @ (means - n @ means / total) ** 2
    return math.sqrt(float(within + between) / (total - 1))
