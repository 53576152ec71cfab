"""Where the heart is, found without labels: it is what moves between ED and ES."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from model.errors import GeometryError

SMOOTHING_MM = 4.0
PRIOR_MM = 70.0
STILL_PERCENT = 90.0
"""Share of the pixels whose motion is taken for noise, breathing and flow elsewhere."""


def heart_centre(
    ed: NDArray[Any], es: NDArray[Any], spacing_mm: tuple[float, float, float]
) -> tuple[float, float]:
    """Centroid of ``|ED − ES|``, weighted by a 70 mm Gaussian prior at the image centre.

    Both phases are scaled to 0…1 between their 1st and 99th percentile; the difference is smoothed in-plane,
    averaged over slices, and only its strongest tenth counts.

    Args:
        ed: ``(Z, Y, X)`` at end-diastole, arbitrary units.
        es: ``(Z, Y, X)`` at end-systole, on the same grid.
        spacing_mm: (z, y, x).

    Returns:
        (y, x) in native pixel coordinates; the image centre where nothing moves.

    Raises:
        GeometryError: ED and ES have different shapes.
    """
    if ed.shape != es.shape:
        raise GeometryError(
            f"ED has {ed.shape} voxels, ES {es.shape}", mend="export both phases from one cine series"
        )
    motion = np.abs(_unit_range(ed) - _unit_range(es)).astype(np.float32)
    smoothing_px = (0.0, SMOOTHING_MM / spacing_mm[1], SMOOTHING_MM / spacing_mm[2])
    motion = gaussian_filter(motion, smoothing_px).mean(0)
    motion = np.clip(motion - np.percentile(motion, STILL_PERCENT), 0, None)
    return _weighted_centre(motion, spacing_mm[1:])


def least_alike(cine: NDArray[Any], phase: int, spacing_mm: tuple[float, float, float]) -> int:
    """The phase that differs most from another, where the heart is expected: a pair to find the heart by.

    Args:
        cine: ``(T, Z, Y, X)``, arbitrary units, at least two phases.
        phase: index of the other; the first one, at the R wave, is near ED.
        spacing_mm: (z, y, x).

    Returns:
        Its index.
    """
    other, weight = _unit_range(cine[phase]), _prior(cine.shape[2:], spacing_mm[1:])
    apart = [float((np.abs(other - _unit_range(stack)).mean(0) * weight).sum()) for stack in cine]
    apart[phase] = -1.0
    return int(np.argmax(apart))


def _unit_range(volume: NDArray[Any]) -> NDArray[np.float64]:
    low, high = np.percentile(volume, (1, 99))
    scaled: NDArray[np.float64] = np.clip((volume - low) / max(high - low, 1e-9), 0, 1)
    return scaled


def _weighted_centre(motion: NDArray[Any], spacing_mm: tuple[float, ...]) -> tuple[float, float]:
    y, x = np.mgrid[: motion.shape[0], : motion.shape[1]]
    weight = motion * _prior(motion.shape, spacing_mm)
    total = float(weight.sum())
    if total <= 0:
        return (motion.shape[0] - 1) / 2, (motion.shape[1] - 1) / 2
    return float((weight * y).sum() / total), float((weight * x).sum() / total)


def _prior(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> NDArray[np.float64]:
    """Gaussian of 70 mm at the image centre, ``(Y, X)``."""
    middle = [(pixels - 1) / 2 for pixels in shape]
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance_mm = np.hypot((y - middle[0]) * spacing_mm[0], (x - middle[1]) * spacing_mm[1])
    prior: NDArray[np.float64] = np.exp(-0.5 * (distance_mm / PRIOR_MM) ** 2)
    return prior
