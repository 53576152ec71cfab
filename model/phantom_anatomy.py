"""A patient's heart in numbers: sizes by pathology group, and the outlines of its slices at ED and ES.

The left cavity at height h below the base is R √(1 − (h/L)³), a bullet; systole shortens it along (base
towards apex) and across, and the wall thickens so that muscle volume is kept. Follows
the rule of ``model/exact.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.errors import DataError
from model.exact import TWO_PI, between, sin_cos
from model.phantom_contour import Contour

Phase = Literal["ED", "ES"]

_BUMP = (70 / 256, 112 / 256, 56 / 256, 16 / 256, 2 / 256)  # ((1 + cos φ) / 2)⁴ as a cosine series


@dataclass(frozen=True)
class Heart:
    """One patient's heart; lengths in mm at ED, angles in radians from x (image right) towards y (down).

    Args:
        group: NOR, DCM, HCM, MINF or RV.
        length_mm: base to apex of the left cavity.
        cavity_mm: radius of the left cavity at the base.
        wall_mm: thickness of the left wall.
        septum_mm: what the septum is thicker by, inwards.
        across: share of its radius that the cavity loses by ES.
        along: share of its length that the cavity loses by ES.
        right_mm: width of the right cavity beyond the septum, at the base.
        right_across: share of that width lost by ES.
        septal_rad: direction of the right ventricle.
        scar_rad: direction of an infarct.
        scar: 0 for none, 1 for a sector that does not move and has half its thickness.
        ellipse: relative difference of the cavity's axes.
    """

    group: str
    length_mm: float
    cavity_mm: float
    wall_mm: float
    septum_mm: float
    across: float
    along: float
    right_mm: float
    right_across: float
    septal_rad: float
    scar_rad: float
    scar: float
    ellipse: float


@dataclass(frozen=True)
class Outlines:
    """One slice's outlines; None where the structure does not reach."""

    cavity: Contour | None
    epicardium: Contour | None
    right: Contour | None


_Range = tuple[float, float]
_SIZES: dict[str, tuple[_Range, _Range, _Range, _Range, _Range, _Range, _Range]] = {
    # length, cavity, wall, across, along, right, right across
    "NOR": ((82, 94), (23, 27), (8, 10), (0.29, 0.37), (0.12, 0.17), (26, 34), (0.30, 0.42)),
    "DCM": ((95, 108), (31, 38), (7, 9), (0.09, 0.17), (0.04, 0.08), (26, 38), (0.15, 0.30)),
    "HCM": ((80, 90), (20, 24), (12, 16), (0.36, 0.46), (0.10, 0.15), (22, 30), (0.30, 0.42)),
    "MINF": ((88, 100), (26, 31), (8, 10), (0.23, 0.30), (0.07, 0.11), (24, 32), (0.25, 0.38)),
    "RV": ((80, 90), (20, 24), (7, 9.5), (0.25, 0.34), (0.10, 0.15), (42, 54), (0.08, 0.18)),
}
GROUPS = tuple(_SIZES)


def draw_heart(group: str, rng: np.random.Generator) -> Heart:
    """Draw a heart of this pathology group.

    Args:
        group: one of ``GROUPS``.
        rng: all randomness.

    Returns:
        Its sizes in mm at ED and its motion to ES; only HCM has a thick septum, only MINF a scar.

    Raises:
        DataError: unknown group.

    Source: orders of magnitude of Bernard et al., IEEE TMI 2018, table I.
    """
    if group not in _SIZES:
        raise DataError(f"no pathology group '{group}'", "draw_heart", f"one of {', '.join(GROUPS)}")
    length, cavity, wall, across, along, right, right_across = (between(rng, *span) for span in _SIZES[group])
    septal = TWO_PI / 2 + between(rng, 0.15, 0.6)
    return Heart(
        group, length, cavity, wall,
        septum_mm=between(rng, 3, 7) if group == "HCM" else between(rng, 0, 0.8),
        across=across, along=along, right_mm=right, right_across=right_across,
        septal_rad=septal,
        scar_rad=septal + between(rng, 0.8, 5.4),
        scar=between(rng, 0.75, 1.0) if group == "MINF" else 0.0,
        ellipse=between(rng, -0.05, 0.05),
    )  # fmt: skip


def outlines_at(heart: Heart, phase: Phase, height_mm: float) -> Outlines:
    """Cut the heart ``height_mm`` below where the base stands at ED.

    Args:
        heart: the patient.
        phase: at ES the base has moved down by ``along`` × length.
        height_mm: negative above the base: atria, no outline.

    Returns:
        The slice's outlines in mm around the heart's axis; None for what does not reach it.
    """
    down = heart.along * heart.length_mm if phase == "ES" else 0.0
    height = height_mm - down
    length = heart.length_mm - down
    if height < 0:
        return Outlines(None, None, None)
    cavity = _cavity(heart, phase, height / length)
    epicardium = _epicardium(heart, phase, height, length)
    right = None if epicardium is None else _right(heart, phase, height / length, epicardium.cosines[0])
    return Outlines(cavity, epicardium, right)


def _bullet(share: float) -> float:
    return float(np.sqrt(max(0.0, 1 - share * share * share)))


def _radius_mm(heart: Heart, phase: Phase) -> float:
    return heart.cavity_mm * (1 - heart.across) if phase == "ES" else heart.cavity_mm


def _cavity(heart: Heart, phase: Phase, share: float) -> Contour | None:
    """The cavity's radius; an infarct keeps its sector at the ED radius, a thick septum presses inwards."""
    radius = _radius_mm(heart, phase) * _bullet(share)
    if radius < 2.5:
        return None
    outline = _round(radius, heart.ellipse * radius, heart.septal_rad)
    if phase == "ES":
        outline = _bulge(
            outline, heart.scar_rad, heart.scar * heart.across * heart.cavity_mm * _bullet(share)
        )
    return _bulge(outline, heart.septal_rad, -min(heart.septum_mm, 0.3 * radius))


def _epicardium(heart: Heart, phase: Phase, height_mm: float, length_mm: float) -> Contour | None:
    """Outer radius: R + wall at ED; at ES what keeps the muscle's area × length."""
    wall, rest = heart.wall_mm, 1 - heart.along
    shape = _bullet(height_mm / (length_mm + 0.7 * wall))
    outer = heart.cavity_mm + wall
    if phase == "ES":
        muscle = (outer * outer - heart.cavity_mm * heart.cavity_mm) / rest
        inner = _radius_mm(heart, phase)
        outer = float(np.sqrt(inner * inner + muscle))
    radius = outer * shape
    if radius < 4:
        return None
    outline = _round(radius, 0.6 * heart.ellipse * radius, heart.septal_rad)
    scarred = (heart.cavity_mm + 0.55 * wall) * shape
    return _bulge(outline, heart.scar_rad, heart.scar * (scarred - radius))


def _right(heart: Heart, phase: Phase, share: float, epicardial_mm: float) -> Contour | None:
    """The right ventricle's free wall, a rounded triangle seated behind the septum; ends before the apex."""
    reach = share / 0.86
    if reach > 0.97:
        return None
    width = heart.right_mm * float(np.sqrt(1 - reach * reach))
    if phase == "ES":
        width = width * (1 - heart.right_across)
    seat = max(0.55 * epicardial_mm, (0.85 * epicardial_mm + width) / 2)
    along = epicardial_mm + width - seat
    across = max((1.12 - 0.3 * share) * epicardial_mm, 0.62 * along)
    mean, stretch = (along + across) / 2, (along - across) / 2
    s, c = sin_cos(heart.septal_rad)
    s2, c2 = sin_cos(2 * heart.septal_rad)
    s3, c3 = sin_cos(3 * heart.septal_rad)
    corner = 0.05 * mean
    return Contour(
        seat * s, seat * c, (mean, 0.0, stretch * c2, corner * c3), (0.0, stretch * s2, corner * s3)
    )


def _round(radius_mm: float, stretch_mm: float, towards_rad: float) -> Contour:
    s, c = sin_cos(2 * towards_rad)
    return Contour(0.0, 0.0, (radius_mm, 0.0, stretch_mm * c, 0.0, 0.0), (0.0, stretch_mm * s, 0.0, 0.0))


def _bulge(outline: Contour, towards_rad: float, by_mm: float) -> Contour:
    """Move the outline by ``by_mm`` in one direction, falling off to nothing on the far side."""
    cosines, sines = [outline.cosines[0] + by_mm * _BUMP[0]], []
    for k in range(1, 5):
        s, c = sin_cos(k * towards_rad)
        part = by_mm * _BUMP[k]
        cosines.append(outline.cosines[k] + part * c)
        sines.append(outline.sines[k - 1] + part * s)
    return Contour(outline.y_mm, outline.x_mm, tuple(cosines), tuple(sines))
