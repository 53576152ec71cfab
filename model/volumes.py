"""What a cardiologist reads off a segmentation: volumes, ejection fraction, myocardial mass."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.labels import LV, MYO, RV

MYOCARDIUM_G_PER_ML = 1.05
MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class Ventricle:
    """Volumes of one ventricle: SV = EDV − ESV, EF = 100 · SV / EDV (NaN if EDV is 0)."""

    edv_ml: float
    esv_ml: float

    @property
    def sv_ml(self) -> float:
        """Stroke volume."""
        return self.edv_ml - self.esv_ml

    @property
    def ef_percent(self) -> float:
        """Ejection fraction."""
        return 100 * self.sv_ml / self.edv_ml if self.edv_ml > 0 else float("nan")


@dataclass(frozen=True)
class HeartFunction:
    """Both ventricles, and the left myocardium's mass at end-diastole."""

    lv: Ventricle
    rv: Ventricle
    mass_g: float


def volume_ml(mask: NDArray[Any], label: int, spacing_mm: tuple[float, float, float]) -> float:
    """Measure one label: voxel count times voxel size.

    Args:
        mask: ``(Z, Y, X)`` integer labels.
        label: the structure's value, see ``model/labels.py``.
        spacing_mm: (z, y, x); z is the distance between slices, gap included.

    Returns:
        Volume in ml; 0 when no voxel has the label.
    """
    return int(np.count_nonzero(mask == label)) * prod(spacing_mm) / MM3_PER_ML


def mass_g(myocardium_ml: float) -> float:
    """Mass of the myocardium at a density of 1.05 g/ml."""
    return myocardium_ml * MYOCARDIUM_G_PER_ML


def heart_function(
    ed: NDArray[Any], es: NDArray[Any], spacing_mm: tuple[float, float, float]
) -> HeartFunction:
    """Read the heart's function off the masks of both phases.

    Args:
        ed: ``(Z, Y, X)`` labels at end-diastole.
        es: ``(Z, Y, X)`` labels at end-systole.
        spacing_mm: (z, y, x) of both.

    Returns:
        EDV and ESV of both ventricles in ml, and the myocardium's mass at end-diastole in g.
    """
    lv, rv = (
        Ventricle(volume_ml(ed, label, spacing_mm), volume_ml(es, label, spacing_mm)) for label in (LV, RV)
    )
    return HeartFunction(lv, rv, mass_g(volume_ml(ed, MYO, spacing_mm)))
