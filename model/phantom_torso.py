"""What surrounds a heart in a short-axis slice: chest wall, lung, fat, liver, stomach, spleen, spine, aorta.

Directions as on the hospital's screen: rows run from front to back, columns from the patient's right to left.
Follows the rule of ``model/exact.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.exact import Floats, between, smooth_field
from model.phantom_canvas import Canvas
from model.phantom_contour import Contour
from model.scanner import Contrast


@dataclass(frozen=True)
class Blob:
    """One organ: an ellipse-like outline that swells or shrinks from slice to slice."""

    y_mm: float
    x_mm: float
    radius_mm: float
    stretch_mm: float
    lean_mm: float
    growth: float

    def outline(self, depth_mm: float) -> Contour | None:
        """The outline ``depth_mm`` below the base; None where the organ has not begun."""
        swell = 1 + self.growth * (depth_mm - 40) / 100
        radius = self.radius_mm * swell
        if radius < 4:
            return None
        share = min(1.0, swell)
        return Contour(
            self.y_mm, self.x_mm, (radius, 0.0, self.stretch_mm * share), (0.0, self.lean_mm * share)
        )


@dataclass(frozen=True)
class Torso:
    """One patient's surroundings, mm from the left ventricle's axis."""

    body: Blob
    fat_mm: float
    muscle_mm: float
    mediastinum: Blob
    liver: Blob
    stomach: Blob
    spleen: Blob
    spine: Blob
    aorta: Blob


def draw_torso(rng: np.random.Generator) -> Torso:
    """Draw a patient's surroundings.

    Args:
        rng: all randomness.

    Returns:
        Body and organs around the left ventricle's axis, and how thick fat and muscle are, all in mm.
    """

    def blob(
        y: float, x: float, radius: float, stretch: float, lean: float, growth: float, vary: float = 0.12
    ) -> Blob:
        size = between(rng, 1 - vary, 1 + vary)
        return Blob(
            y + between(rng, -6, 6),
            x + between(rng, -6, 6),
            radius * size,
            stretch * size,
            lean * size,
            growth,
        )

    return Torso(
        body=blob(62, -68, 141, 14, 0, 0.0, vary=0.05),
        fat_mm=between(rng, 6, 20),
        muscle_mm=between(rng, 6, 12),
        mediastinum=blob(-36, -50, 22, 6, 6, -0.2),
        liver=blob(84, -58, 56, 14, 12, 0.9),
        stomach=blob(74, 34, 20, 6, -3, 1.1),
        spleen=blob(86, 70, 22, 0, 7, 0.6),
        spine=blob(112, -40, 20, 3, 0, 0.0),
        aorta=blob(66, -6, 10.5, 0.5, 0, 0.0),
    )


def paint_torso(
    canvas: Canvas, torso: Torso, depth_mm: float, contrast: Contrast, rng: np.random.Generator
) -> None:
    """Paint everything but the heart.

    Args:
        canvas: empty; its texture is filled in.
        torso: the patient's surroundings.
        depth_mm: of the slice below the heart's base.
        contrast: the scanner's tissue signals.
        rng: textures; the same state gives the same ED and ES background.
    """
    rows, columns = canvas.signal.shape
    fine, middle, coarse = (smooth_field(rng, (rows, columns), grain) for grain in (2, 5, 16))
    canvas.texture = np.stack([fine, middle, coarse])
    _paint_wall(canvas, torso, contrast)
    _paint_organ(canvas, torso.mediastinum, depth_mm, contrast.fat * (0.75 + 0.3 * coarse))
    liver = contrast.liver * (1 + 0.08 * middle) + 0.9 * contrast.blood * _vessels(middle, fine)
    _paint_organ(canvas, torso.liver, depth_mm, liver)
    _paint_organ(canvas, torso.spleen, depth_mm, contrast.spleen * (1 + 0.06 * middle))
    _paint_organ(canvas, torso.stomach, depth_mm, contrast.muscle)
    _paint_organ(canvas, torso.stomach, depth_mm, contrast.bowel * (1 + 0.5 * middle), inset_mm=3.5)
    _paint_organ(canvas, torso.spine, depth_mm, contrast.bone * (1 + 0.1 * fine))
    _paint_organ(canvas, torso.aorta, depth_mm, contrast.wall, inset_mm=-1.5)
    _paint_organ(canvas, torso.aorta, depth_mm, contrast.blood * (1 + 0.04 * middle))


def _paint_wall(canvas: Canvas, torso: Torso, contrast: Contrast) -> None:
    """Air outside, then skin fat, muscle with ribs, and lung inside."""
    _, middle, coarse = canvas.texture
    body = torso.body.outline(40.0)
    canvas.signal = np.zeros_like(canvas.signal)
    if body is None:
        return
    skin, muscle = body.grown(-torso.fat_mm), body.grown(-torso.fat_mm - torso.muscle_mm)
    canvas.paint(canvas.cover(body), contrast.fat * (1 + 0.08 * middle))
    canvas.paint(canvas.cover(skin), contrast.muscle * (1 + 0.12 * middle))
    ribs = canvas.cover(skin.grown(-2.0)) * np.clip(8 * (coarse - 0.15), 0, 1)
    canvas.paint(ribs, contrast.bone)
    canvas.paint(canvas.cover(muscle), contrast.fat * (0.9 + 0.08 * middle))
    canvas.paint(canvas.cover(muscle.grown(-3.0)), _lung(canvas, contrast))


def _lung(canvas: Canvas, contrast: Contrast) -> Floats:
    fine, middle, _ = canvas.texture
    return np.asarray(contrast.lung + 0.45 * contrast.blood * _vessels(fine, middle))


def _vessels(sharp: Floats, broad: Floats) -> Floats:
    """Sparse dots where two fields are high at once, 0 … 1."""
    return np.clip(4 * (sharp - 0.62), 0, 1) * np.clip(0.4 + broad, 0, 1)


def _paint_organ(
    canvas: Canvas, organ: Blob, depth_mm: float, signal: float | Floats, inset_mm: float = 0.0
) -> None:
    outline = organ.outline(depth_mm)
    if outline is not None:
        canvas.paint(canvas.cover(outline.grown(-inset_mm)), signal)
