"""The heart is found where something moves, without labels."""

from __future__ import annotations

import numpy as np
import pytest

from model.errors import GeometryError
from model.heart import heart_centre

SPACING_MM = (8.0, 1.5, 1.25)


def _phases(y_px: float, x_px: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Still organs and noise, and one disc that shrinks from 25 to 18 mm."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:120, :150]
    still = 100 + 80 * (np.hypot((y - 20) * 1.5, (x - 120) * 1.25) < 30)
    from_heart_mm = np.hypot((y - y_px) * SPACING_MM[1], (x - x_px) * SPACING_MM[2])
    phases = (still + 200 * (from_heart_mm < radius_mm) for radius_mm in (25, 18))
    ed, es = (np.repeat(phase[None], 6, 0) + rng.normal(0, 15, (6, 120, 150)) for phase in phases)
    return ed, es


@pytest.mark.parametrize(("y_px", "x_px"), [(59.5, 74.5), (45, 90), (80, 60)])
def test_centre_is_found_within_ten_millimetres(y_px: float, x_px: float) -> None:
    y, x = heart_centre(*_phases(y_px, x_px), SPACING_MM)
    assert np.hypot((y - y_px) * SPACING_MM[1], (x - x_px) * SPACING_MM[2]) < 10


def test_order_of_the_phases_is_irrelevant() -> None:
    ed, es = _phases(45, 90)
    assert heart_centre(ed, es, SPACING_MM) == pytest.approx(heart_centre(es, ed, SPACING_MM))


def test_intensity_scale_is_irrelevant() -> None:
    ed, es = _phases(45, 90)
    assert heart_centre(9 * ed + 5, 9 * es + 5, SPACING_MM) == pytest.approx(heart_centre(ed, es, SPACING_MM))


def test_nothing_moving_gives_the_image_centre() -> None:
    ed, _ = _phases(45, 90)
    assert heart_centre(ed, ed, SPACING_MM) == (59.5, 74.5)


def test_phases_of_different_shape_are_refused() -> None:
    with pytest.raises(GeometryError, match="ES"):
        heart_centre(np.zeros((2, 5, 5)), np.zeros((3, 5, 5)), SPACING_MM)
