"""One volume's intensities made comparable with any other's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import IntensityError

PERCENTILES = (1.0, 99.0)


def normalise(volume: NDArray[Any]) -> NDArray[np.float32]:
    """Clip to the volume's 1st and 99th percentile, subtract the mean, divide by the standard deviation.

    Args:
        volume: any shape, any real dtype, arbitrary units.

    Returns:
        The same shape, float32, mean 0 and standard deviation 1.

    Raises:
        IntensityError: the volume holds NaN or infinite values, or is constant once clipped.
    """
    if not np.isfinite(volume).all():
        raise IntensityError("the volume holds NaN or infinite values", mend="export the series again")
    low, high = np.percentile(volume, PERCENTILES)
    if not low < high:
        raise IntensityError(f"98 % of the volume is the value {low:g}", mend="export the series again")
    clipped = np.clip(volume.astype(np.float64), low, high)
    standard: NDArray[np.float32] = ((clipped - clipped.mean()) / clipped.std()).astype(np.float32)
    return standard
