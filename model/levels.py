"""Base, mid and apex of a short-axis stack, and how well a structure was segmented at each level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.labels import LV, MYO
from model.metrics import distances, overlap

LEVELS = ("base", "mid", "apex")


@dataclass(frozen=True)
class LevelScore:
    """One structure on the slices of one level.

    Attributes:
        dice: of all the level's voxels together; NaN where both masks are empty.
        voe: likewise.
        hd_mm: mean over slices of the distance in the plane; NaN when no slice holds both masks.
        hd95_mm: likewise.
        assd_mm: likewise.
        slices: of the level.
        measured: slices that hold both masks, those behind the distances.
    """

    dice: float
    voe: float
    hd_mm: float
    hd95_mm: float
    assd_mm: float
    slices: int
    measured: int


def slice_levels(truth: NDArray[Any]) -> tuple[str, ...]:
    """Name every slice's level: thirds of the slices in which the reference holds LV or MYO.

    The k-th of n such slices, counted from the base, lies at ``(k + ½) / n``: below ⅓ it is base, below ⅔ mid,
    else apex. The base is the end whose half of the stack has the larger labelled area.

    Args:
        truth: ``(Z, Y, X)`` labels of the reference, slices in anatomical order.

    Returns:
        A name per slice, one of ``LEVELS``; empty where the reference shows no left heart.

    Source: thirds as in Cerqueira et al., Circulation 105 (2002) 539–542; the wide end as base is ours.
    """
    held = np.flatnonzero(np.isin(truth, (LV, MYO)).any(axis=(1, 2)))
    area = (truth > 0).sum(axis=(1, 2))
    half = len(held) // 2
    if area[held[len(held) - half :]].sum() > area[held[:half]].sum():
        held = held[::-1]
    names = [""] * len(truth)
    for k, z in enumerate(held):
        names[z] = LEVELS[int(3 * (k + 0.5) / len(held))]
    return tuple(names)


def score_levels(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    levels: Sequence[str],
    spacing_mm: tuple[float, float],
) -> dict[str, LevelScore]:
    """Overlap and in-plane distances of one structure by level.

    What is predicted beyond the slices of the reference belongs to no level; the whole volume's Dice counts it.

    Args:
        prediction: ``(Z, Y, X)``, true inside the structure.
        truth: likewise.
        levels: per slice, as :func:`slice_levels` names them.
        spacing_mm: (y, x) voxel size.

    Returns:
        A score for each of ``LEVELS``; all NaN where a level has no slice.
    """
    return {
        level: _score([z for z, name in enumerate(levels) if name == level], prediction, truth, spacing_mm)
        for level in LEVELS
    }


def _score(
    at: list[int], prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: tuple[float, float]
) -> LevelScore:
    shared = overlap(prediction[at], truth[at])
    both = [z for z in at if prediction[z].any() and truth[z].any()]
    apart = [distances(prediction[z], truth[z], spacing_mm) for z in both]
    hd, hd95, assd = (
        float(np.mean([getattr(d, name) for d in apart])) if apart else float("nan")
        for name in ("hd_mm", "hd95_mm", "assd_mm")
    )
    return LevelScore(shared.dice, shared.voe, hd, hd95, assd, len(at), len(both))
