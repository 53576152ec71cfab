"""How well one structure was segmented: overlap, and distances between surfaces in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from model.errors import GeometryError

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """Dice = 2|P∩T| / (|P|+|T|) and VOE = 1 − |P∩T| / |P∪T|; NaN where both masks are empty."""

    dice: float
    voe: float


@dataclass(frozen=True)
class Distances:
    """Surface distances in mm; NaN where either mask is empty.

    HD is the largest distance from one surface to the other, HD95 the larger of the two directions' 95th
    percentiles, ASSD the mean over both surfaces' voxels together.
    """

    hd_mm: float
    hd95_mm: float
    assd_mm: float


def overlap(prediction: NDArray[Any], truth: NDArray[Any]) -> Overlap:
    """Dice and volumetric overlap error of two masks.

    Args:
        prediction: ``(Z, Y, X)``, nonzero inside the structure.
        truth: likewise, on the same grid.

    Returns:
        Both in 0…1; NaN and NaN if both masks are empty, 0 and 1 if one is.

    Raises:
        GeometryError: the shapes differ.
    """
    predicted, true = _as_masks(prediction, truth)
    shared = int(np.count_nonzero(predicted & true))
    total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(true))
    if total == 0:
        return Overlap(float("nan"), float("nan"))
    return Overlap(2 * shared / total, 1 - shared / (total - shared))


def distances(prediction: NDArray[Any], truth: NDArray[Any], spacing_mm: tuple[float, ...]) -> Distances:
    """Hausdorff distance, its 95th percentile, and average symmetric surface distance.

    A surface is the voxels of a mask with a face neighbour outside it; distances run between voxel centres.

    Args:
        prediction: ``(Z, Y, X)``, or one slice ``(Y, X)`` for distances in its plane; nonzero inside the structure.
        truth: likewise, on the same grid.
        spacing_mm: (z, y, x) voxel size, or (y, x); there is no default, for a wrong one gives plausible numbers.

    Returns:
        All in mm; NaN if either mask is empty.

    Raises:
        GeometryError: the shapes differ, or a spacing is not a positive number.

    Source: defined as in MONAI's ``HausdorffDistanceMetric`` and ``SurfaceDistanceMetric(symmetric=True)``.
    """
    predicted, true = _as_masks(prediction, truth)
    if len(spacing_mm) != predicted.ndim or not all(np.isfinite(step) and step > 0 for step in spacing_mm):
        raise GeometryError(f"spacing {spacing_mm} mm is not one positive number per axis")
    if not predicted.any() or not true.any():
        return Distances(float("nan"), float("nan"), float("nan"))
    box = _bounding_box(predicted | true)
    ours, theirs = _surface(predicted[box]), _surface(true[box])
    there, back = _between(ours, theirs, spacing_mm), _between(theirs, ours, spacing_mm)
    return Distances(
        hd_mm=float(max(there.max(), back.max())),
        hd95_mm=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        assd_mm=float(np.concatenate([there, back]).mean()),
    )


def _as_masks(prediction: NDArray[Any], truth: NDArray[Any]) -> tuple[Mask, Mask]:
    if prediction.shape != truth.shape:
        raise GeometryError(f"a prediction of {prediction.shape} voxels against a truth of {truth.shape}")
    return prediction.astype(bool), truth.astype(bool)


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds all of a mask; every surface voxel lies in it."""
    spans = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        hits = np.flatnonzero(mask.any(axis=others))
        spans.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return tuple(spans)


def _surface(mask: Mask) -> Mask:
    surface: Mask = mask & ~binary_erosion(mask)
    return surface


def _between(start: Mask, goal: Mask, spacing_mm: tuple[float, ...]) -> NDArray[np.float64]:
    """Distance in mm from every voxel of ``start`` to the nearest of ``goal``."""
    field: NDArray[np.float64] = distance_transform_edt(~goal, sampling=spacing_mm)
    return field[start]
