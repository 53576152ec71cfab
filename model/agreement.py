"""How well a measurement agrees with its reference: bias, limits of agreement, absolute error, ICC(2,1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from model.errors import DataError

Floats = NDArray[np.float64]
Z_95 = 1.96
"""Standard deviations that hold 95 % of normal differences, as Bland and Altman round it."""


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


UNDEFINED = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Agreement:
    """Differences measured − reference, in the measurement's unit.

    Attributes:
        n: pairs.
        bias: mean difference.
        sd: standard deviation of the differences (n − 1).
        lower: limit below which 2.5 % of differences are expected.
        upper: likewise above.
        mae: mean absolute difference.
        icc: ICC(2,1), no unit.
    """

    n: int
    bias: Estimate
    sd: float
    lower: Estimate
    upper: Estimate
    mae: float
    icc: Estimate


def agreement(measured: Sequence[float] | Floats, reference: Sequence[float] | Floats) -> Agreement:
    """Compare paired measurements, one pair per patient.

    With d = measured − reference, s its standard deviation and t the 97.5 % quantile of Student's distribution
    with n − 1 degrees of freedom: bias ``mean(d) ± t · s / √n``; limits ``mean(d) ± 1.96 s``, each
    ``± t · s · √(1/n + 1.96² / (2 (n − 1)))``.

    Args:
        measured: ``(n,)`` finite.
        reference: ``(n,)`` finite, in the same order and unit.

    Returns:
        All of it; NaN where n does not define it (bias 1, all else 2 pairs).

    Raises:
        DataError: the lengths differ, or a value is not finite.

    Source: Bland and Altman, Lancet 327 (1986) 307–310; the variance of a limit from Bland and Altman,
    Statistical Methods in Medical Research 8 (1999) 135–160, section 2.1 (in 1986 it was approximated by 3 s²/n).
    """
    pairs = _checked(np.column_stack(_equally_long(measured, reference)))
    n, differences = len(pairs), pairs[:, 0] - pairs[:, 1]
    if n == 0:
        return Agreement(0, UNDEFINED, math.nan, UNDEFINED, UNDEFINED, math.nan, UNDEFINED)
    mean, mae = float(differences.mean()), float(np.abs(differences).mean())
    if n == 1:
        alone = Estimate(mean, math.nan, math.nan)
        return Agreement(1, alone, math.nan, UNDEFINED, UNDEFINED, mae, UNDEFINED)
    sd, t = float(differences.std(ddof=1)), float(stats.t.ppf(0.975, n - 1))
    of_limit = sd * math.sqrt(1 / n + Z_95**2 / (2 * (n - 1)))
    return Agreement(
        n=n,
        bias=_around(mean, t * sd / math.sqrt(n)),
        sd=sd,
        lower=_around(mean - Z_95 * sd, t * of_limit),
        upper=_around(mean + Z_95 * sd, t * of_limit),
        mae=mae,
        icc=icc_2_1(pairs),
    )


def icc_2_1(ratings: Floats) -> Estimate:
    """Intraclass correlation for absolute agreement of single measurements, both ways random.

    ``ICC(2,1) = (BMS − EMS) / (BMS + (k − 1) EMS + k (JMS − EMS) / n)`` with the mean squares between n targets,
    between k judges, and of the residual. A method that is always 10 ml too high has a lower one; a correlation
    would not see it. The interval is Satterthwaite's.

    Args:
        ratings: ``(n, k)``, a row per target, a column per judge.

    Returns:
        The coefficient, at most 1, negative when judges agree less than by chance; NaN with fewer than two
        targets or judges, or when nothing varies. Bounds NaN where all variance is between judges.

    Raises:
        DataError: a value is not finite.

    Source: Shrout and Fleiss, Psychological Bulletin 86 (1979) 420–428, case 2; the interval in the form of
    McGraw and Wong, Psychological Methods 1 (1996) 30–46, table 7, ICC(A,1).
    """
    n, k = ratings.shape
    _checked(ratings)
    if n < 2 or k < 2:
        return UNDEFINED
    bms, jms, ems = _mean_squares(ratings)
    spread = bms + (k - 1) * ems + k * (jms - ems) / n
    if spread <= 0:
        return UNDEFINED
    icc = (bms - ems) / spread
    if ems == 0 and jms == 0:
        return Estimate(icc, icc, icc)
    low, high = _icc_interval(icc, (bms, jms, ems), n, k)
    return Estimate(icc, low, high)


def _mean_squares(ratings: Floats) -> tuple[float, float, float]:
    """Between targets, between judges, residual: of a two-way layout with one value per cell."""
    n, k = ratings.shape
    mean, of_targets, of_judges = ratings.mean(), ratings.mean(axis=1), ratings.mean(axis=0)
    residual = ratings - of_targets[:, None] - of_judges[None, :] + mean
    bms = k * float(((of_targets - mean) ** 2).sum()) / (n - 1)
    jms = n * float(((of_judges - mean) ** 2).sum()) / (k - 1)
    return bms, jms, float((residual**2).sum()) / ((n - 1) * (k - 1))


def _icc_interval(icc: float, squares: tuple[float, float, float], n: int, k: int) -> tuple[float, float]:
    bms, jms, ems = squares
    if icc == 1:
        return 1.0, 1.0
    a, b = k * icc / (n * (1 - icc)), 1 + k * icc * (n - 1) / (n * (1 - icc))
    spread = (a * jms) ** 2 / (k - 1) + (b * ems) ** 2 / ((n - 1) * (k - 1))
    if spread == 0:
        return math.nan, math.nan
    freedom = (a * jms + b * ems) ** 2 / spread
    below, above = float(stats.f.ppf(0.975, n - 1, freedom)), float(stats.f.ppf(0.975, freedom, n - 1))
    noise = k * jms + (k * n - k - n) * ems
    low = n * (bms - below * ems) / (below * noise + n * bms)
    high = n * (above * bms - ems) / (noise + n * above * bms)
    return low, high


def _around(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half)


def _equally_long(
    measured: Sequence[float] | Floats, reference: Sequence[float] | Floats
) -> tuple[Floats, Floats]:
    x, y = np.asarray(measured, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if x.shape != y.shape:
        raise DataError(
            f"{len(x)} measurements of {len(y)} references", "agreement", "give one reference for each"
        )
    return x, y


def _checked(values: Floats) -> Floats:
    if not np.isfinite(values).all():
        raise DataError("a value is not finite", "agreement", "leave undefined pairs out and count them")
    return values
