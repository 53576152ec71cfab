"""Random surroundings of a heart: organs, vessels, hollow organs, chest wall and lung specks of any signal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.phantom_canvas import Canvas
from model.phantom_contour import PI, Contour

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Tissues:
    """Signal of the tissues in one image, arbitrary units around 0 … 1."""

    blood: float
    right_blood: float
    wall: float
    fat: float
    lung: float
    organs: tuple[float, ...]


def outline(
    y_mm: float, x_mm: float, radius_mm: float, roughness: float, rng: np.random.Generator
) -> Contour:
    """Draw a random star-shaped outline.

    Args:
        y_mm: centre.
        x_mm: centre.
        radius_mm: mean radius.
        roughness: relative amplitude of the ellipse term; higher harmonics fall with their order squared.
        rng: all randomness.

    Returns:
        A contour of five harmonics around the mean radius.
    """
    order = np.arange(1, 6)
    fall = radius_mm * roughness * np.array([0.3, 1.0, 0.35, 0.2, 0.1])
    a, b = rng.standard_normal((2, len(order))) * fall
    return Contour(y_mm, x_mm, (radius_mm, *a.tolist()), tuple(b.tolist()))


def draw_tissues(wild: float, rng: np.random.Generator) -> Tissues:
    """Draw the signals of one image.

    Args:
        wild: 0 … 1; the wilder, the more the two ventricles' blood may differ.
        rng: all randomness.

    Returns:
        A signal per tissue and of six organs; blood is always brighter than the wall.
    """
    wall = rng.uniform(0.08, 0.45)
    blood = wall + rng.uniform(0.15, 0.8)
    return Tissues(
        blood=blood,
        right_blood=wall + (blood - wall) * (1 + wild * rng.uniform(-0.35, 0.2)),
        wall=wall,
        fat=rng.uniform(0.35, 1.5),
        lung=rng.uniform(0.0, 0.12),
        organs=tuple(rng.uniform(0.03, 0.75, 6).tolist()),
    )


def paint_surroundings(canvas: Canvas, tissues: Tissues, wild: float, rng: np.random.Generator) -> None:
    """Fill the canvas with everything but the heart.

    Args:
        canvas: empty, with its textures.
        tissues: signals of the image.
        wild: 0 … 1; the wilder, the more organs, vessels and rings.
        rng: all randomness.
    """
    canvas.signal[:] = tissues.lung if rng.random() < 0.6 else rng.choice(tissues.organs)
    for _ in range(1 + int(rng.uniform(1, 7) * wild)):
        _paint_organ(canvas, tissues, rng)
    paint_vessels(canvas, tissues, rng, int(rng.uniform(0, 5) * wild), reach_mm=95.0)
    for _ in range(int(rng.uniform(0, 5) * wild)):
        _paint_ring(canvas, tissues, rng)
    if rng.random() < 0.75:
        _paint_chest_wall(canvas, tissues, rng)
    _paint_specks(canvas, tissues, rng)
    canvas.signal *= 1 + rng.uniform(0, 0.12) * canvas.texture[rng.integers(0, 3)]


def _around(rng: np.random.Generator, near_mm: float, far_mm: float) -> tuple[float, float]:
    angle, reach = rng.uniform(-PI, PI), rng.uniform(near_mm, far_mm)
    return reach * np.sin(angle), reach * np.cos(angle)


def _paint_organ(canvas: Canvas, tissues: Tissues, rng: np.random.Generator) -> None:
    y, x = _around(rng, 30, 115)
    shape = outline(y, x, rng.uniform(12, 75), 0.22, rng)
    signal = tissues.lung if rng.random() < 0.35 else rng.choice(tissues.organs)
    grain = canvas.texture[rng.integers(0, 3)] * rng.uniform(0, 0.25)
    if rng.random() < 0.4:
        canvas.paint(canvas.cover(shape.grown(rng.uniform(1, 5))), rng.choice([tissues.fat, tissues.lung]))
    canvas.paint(canvas.cover(shape), (signal * (1 + grain)).astype(np.float32))


def paint_vessels(
    canvas: Canvas, tissues: Tissues, rng: np.random.Generator, count: int, reach_mm: float
) -> None:
    """Round bright spots, at 0.4 to 1 × ``reach_mm`` from the heart's axis.

    Args:
        canvas: what is painted on.
        tissues: signals of the image.
        rng: all randomness.
        count: how many.
        reach_mm: farthest distance.
    """
    for _ in range(count):
        y, x = _around(rng, 0.4 * reach_mm, reach_mm)
        canvas.paint(
            canvas.cover(outline(y, x, rng.uniform(2.5, 15), 0.12, rng)),
            tissues.blood * rng.uniform(0.6, 1.3),
        )


def _paint_ring(canvas: Canvas, tissues: Tissues, rng: np.random.Generator) -> None:
    """A hollow organ: bright wall and dark inside, or dark wall and grey inside."""
    y, x = _around(rng, 45, 100)
    shape = outline(y, x, rng.uniform(6, 24), 0.2, rng)
    rim, inside = rng.choice(np.array([*tissues.organs, tissues.lung, tissues.fat]), 2)
    canvas.paint(canvas.cover(shape.grown(rng.uniform(2, 7))), rim)
    canvas.paint(canvas.cover(shape), inside)


def _paint_chest_wall(canvas: Canvas, tissues: Tissues, rng: np.random.Generator) -> None:
    """Layers seen from inside: muscle, ribs or marrow, bright fat, and air outside the body."""
    y, x = _around(rng, 50, 160)
    reach = (y * y + x * x) ** 0.5
    body = outline(-y, -x, reach + rng.uniform(32, 75), 0.04, rng)
    beyond = body.beyond_mm(canvas.y_mm, canvas.x_mm) + canvas.texture[2] * rng.uniform(0, 2.5)
    depth = 0.0
    muscle = rng.choice(tissues.organs)
    for signal in (tissues.fat * 0.8, muscle, tissues.fat, 0.0):
        layer = np.clip(0.5 + (beyond - depth) / canvas.spacing_mm, 0, 1).astype(np.float32)
        if signal == 0.0 or rng.random() < 0.8:
            canvas.paint(layer, (signal * (1 + 0.1 * canvas.texture[1])).astype(np.float32))
        depth += rng.uniform(2, 16)


def _paint_specks(canvas: Canvas, tissues: Tissues, rng: np.random.Generator) -> None:
    """Lung vessels: bright dots, where it is dark."""
    dots = (rng.random(canvas.signal.shape, np.float32) < rng.uniform(0, 0.01)).astype(np.float32)
    dots = ndimage.gaussian_filter(dots, 1.3 / canvas.spacing_mm, truncate=3)
    dark = np.clip(1 - canvas.signal / (tissues.wall + 0.05), 0, 1)
    canvas.signal += dots * dark * np.float32(rng.uniform(0.5, 4.0) * tissues.blood)
