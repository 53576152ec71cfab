"""A DICOM folder in, one short-axis cine out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import IntensityError
from tasks.dicom.choose import choose
from tasks.dicom.folder import find_series
from tasks.dicom.geometry import affine_of
from tasks.dicom.header import EXPORT_AGAIN, Header
from tasks.dicom.phases import trigger_table
from tasks.dicom.pixels import read_pixels


@dataclass(frozen=True)
class Cine:
    """One short-axis cine.

    Attributes:
        values: ``(T, Z, Y, X)`` float32.
        affine: ``(4, 4)`` from (x, y, z) indices to RAS mm, oblique as acquired.
        trigger_ms: ``(T, Z)``; NaN when the phases were ordered by something else.
        vendor: as the header writes it.
        headers: ``[t][z]`` the header of each image.
    """

    values: NDArray[np.float32]
    affine: NDArray[np.float64]
    trigger_ms: NDArray[np.float64]
    vendor: str
    headers: tuple[tuple[Header, ...], ...]

    @property
    def files(self) -> tuple[tuple[Path, ...], ...]:
        """``[t][z]`` the file of each image."""
        return tuple(tuple(one.path for one in phase) for phase in self.headers)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(z, y, x); z is the distance between slices, gap included."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)


def read_cine(folder: Path) -> Cine:
    """Read the one short-axis cine below ``folder``.

    Args:
        folder: holds it at any depth, among others perhaps.

    Returns:
        Images, geometry, times and headers.

    Raises:
        DataError: of the kind of its fault; see ``choose``, ``find_series`` and ``read_pixels``.
    """
    slices, _ = choose(find_series(folder), str(folder))
    depth, phases = len(slices), len(slices[0])
    order = [slices[z][t] for t in range(phases) for z in range(depth)]
    values = np.stack(read_pixels(order)).reshape(phases, depth, *order[0].shape)
    if not np.isfinite(values).all() or float(np.ptp(values)) == 0:
        raise IntensityError("the images are constant or not finite", str(folder), EXPORT_AGAIN)
    headers = tuple(tuple(slices[z][t] for z in range(depth)) for t in range(phases))
    return Cine(values, affine_of(slices, str(folder)), trigger_table(slices), order[0].vendor, headers)
