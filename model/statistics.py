"""Means with their spread: over seeds, over sites, and by a bootstrap over the patients that were tested."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from model.errors import DataError

RESAMPLES = 10_000
Floats = NDArray[np.float64]
Labels = Sequence[Hashable]


def mean_sd(values: Sequence[float] | Floats) -> tuple[float, float]:
    """Mean and standard deviation (n − 1 in the denominator).

    Args:
        values: ``(n,)``; a NaN makes both results NaN, so that nothing undefined is dropped in silence.

    Returns:
        The mean, NaN without values; the standard deviation, NaN with fewer than two.
    """
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean()) if x.size else math.nan
    return mean, float(x.std(ddof=1)) if x.size > 1 else math.nan


def sd_between(values: Sequence[float] | Floats, splits: Labels, trainings: Labels) -> tuple[float, float]:
    """How much a result moves with the split alone, and with the training seed alone.

    ``sd_split`` pools, over training seeds, the variance between the splits run with that training seed:
    ``√(Σ_t Σ_s (x_st − mean_t)² / Σ_t (n_t − 1))``; ``sd_train`` with the roles exchanged.

    Args:
        values: ``(n,)``, one result per pair of seeds.
        splits: ``(n,)`` split seeds.
        trainings: ``(n,)`` training seeds.

    Returns:
        ``sd_split`` and ``sd_train``; NaN where no seed of the other kind was held fixed over two runs.

    Raises:
        DataError: the lengths differ.
    """
    x = np.asarray(values, dtype=np.float64)
    _require_lengths(len(x), splits, trainings)
    return _pooled_sd(x, _codes(trainings)), _pooled_sd(x, _codes(splits))


def nested_weights(*levels: Labels) -> Floats:
    """Weights under which a plain sum is a mean of means: over seeds of the mean over sites of the mean over rows.

    With levels (seeds, sites) a row of site s in seed j has ``1 / (J · S_j · n_js)``.

    Args:
        *levels: ``(n,)`` labels each, the outermost first; an inner label is taken within its outer ones.

    Returns:
        ``(n,)``, adding up to 1; empty without rows.

    Raises:
        DataError: the lengths differ.
    """
    n = len(levels[0]) if levels else 0
    _require_lengths(n, *levels)
    weights = np.ones(n)
    outer = np.zeros(n, dtype=np.intp)
    for level in levels:
        inner = _codes(list(zip(outer.tolist(), level, strict=True)))
        children = {parent: len(set(inner[outer == parent].tolist())) for parent in set(outer.tolist())}
        weights /= np.array([children[parent] for parent in outer.tolist()], dtype=np.float64)
        outer = inner
    sizes = np.bincount(outer) if n else np.ones(1, dtype=np.intp)
    return weights / sizes[outer]


def paired_bootstrap(
    values: Sequence[float] | Floats,
    units: Labels,
    strata: Labels,
    rng: np.random.Generator,
    weights: Floats | None = None,
    resamples: int = RESAMPLES,
) -> tuple[float, float, float]:
    """Weighted mean of paired differences and its 95 % percentile interval over *units* (patients).

    Units are drawn with replacement within their stratum (site), all rows of a unit together; strata keep their
    weight. With ``t_u = Σ w·d`` and ``W_u = Σ w`` over the rows of unit u, and multiplicities ``m_u``, a draw is
    ``Σ_strata W · (θ + √(n / (n − 1)) · (Σ m·t / Σ m·W − θ))`` over ``Σ W``, where θ is the stratum's own mean
    and n its number of units. Without the root, strata of two patients would show half their variance. A
    stratum of one unit shows none: such strata are drawn from as one (one that is left over joins the smallest
    other), which counts the difference between their means as spread and so errs to the wide side.

    Seeds are not drawn: the interval speaks of other patients at these sites, under these seeds.

    Args:
        values: ``(n,)`` differences, finite; a row per unit and seed.
        units: ``(n,)`` who is drawn; a patient seen under several seeds is one unit.
        strata: ``(n,)``; all rows of a unit have the same.
        rng: draws the units.
        weights: ``(n,)`` positive, such as ``nested_weights``; equal by default.
        resamples: number of draws.

    Returns:
        Mean, 2.5 % and 97.5 % bound. All NaN without rows; bounds NaN with a single unit.

    Raises:
        DataError: lengths differ, a value is not finite, a weight is not positive, or a unit has two strata.

    Source: rescaling bootstrap of Rao and Wu (JASA 83, 1988, 231–241) with as many draws as units; the factor is
    applied here to a stratum's ratio mean, which is the same thing for units of equal weight.
    """
    x = np.asarray(values, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    _require_lengths(len(x), units, strata, w.tolist())
    _require_usable(x, w)
    if not len(x):
        return math.nan, math.nan, math.nan
    unit = _codes(units)
    stratum = _collapsed(_stratum_of_unit(unit, _codes(strata)))
    totals, sizes = np.bincount(unit, w * x), np.bincount(unit, w)
    mean = float(totals.sum() / sizes.sum())
    if len(totals) == 1:
        return mean, math.nan, math.nan
    sums = np.zeros(resamples)
    for label in np.unique(stratum):
        members = stratum == label
        sums += _drawn_sums(totals[members], sizes[members], rng, resamples)
    low, high = np.quantile(sums / sizes.sum(), (0.025, 0.975))
    return mean, float(low), float(high)


def _drawn_sums(totals: Floats, sizes: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """``(resamples,)``: the stratum's weight times its mean, redrawn."""
    n = len(totals)
    counts = rng.multinomial(n, np.full(n, 1.0 / n), size=resamples).astype(np.float64)
    mean = totals.sum() / sizes.sum()
    drawn: Floats = (counts @ totals) / (counts @ sizes)
    return np.asarray(sizes.sum() * (mean + math.sqrt(n / (n - 1)) * (drawn - mean)), dtype=np.float64)


def _collapsed(stratum: NDArray[np.intp]) -> NDArray[np.intp]:
    """Strata of a single unit become one; if there is only one such, it joins the smallest other stratum."""
    labels, counts = np.unique(stratum, return_counts=True)
    small = labels[counts == 1]
    if len(small) == 1 and len(labels) > 1:
        small = labels[np.argsort(counts, kind="stable")[:2]]
    return np.where(np.isin(stratum, small), small[0], stratum) if len(small) else stratum


def _stratum_of_unit(unit: NDArray[np.intp], stratum: NDArray[np.intp]) -> NDArray[np.intp]:
    pairs = np.unique(np.stack([unit, stratum], axis=1), axis=0)
    if len(pairs) > len(np.unique(unit)):
        raise DataError(
            "a unit lies in two strata", "paired bootstrap", "draw without strata, or name units apart"
        )
    return pairs[:, 1]


def _pooled_sd(values: Floats, groups: NDArray[np.intp]) -> float:
    squares, freedom = 0.0, 0
    for group in np.unique(groups):
        x = values[groups == group]
        squares += float(((x - x.mean()) ** 2).sum())
        freedom += len(x) - 1
    return math.sqrt(squares / freedom) if freedom else math.nan


def _codes(labels: Labels) -> NDArray[np.intp]:
    """Labels as 0, 1, …, in an order that does not depend on the rows' order."""
    order = {label: k for k, label in enumerate(sorted(set(labels), key=repr))}
    return np.array([order[label] for label in labels], dtype=np.intp)


def _require_lengths(n: int, *others: Sequence[object]) -> None:
    if any(len(other) != n for other in others):
        raise DataError(
            f"{n} values with labels of lengths {[len(o) for o in others]}",
            "statistics",
            "give one per value",
        )


def _require_usable(values: Floats, weights: Floats) -> None:
    if not np.isfinite(values).all():
        raise DataError(
            "a difference is not finite", "paired bootstrap", "leave undefined ones out and count them"
        )
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise DataError("a weight is not positive", "paired bootstrap", "weigh every value")
