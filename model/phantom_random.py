"""Random short-axis slices before the scanner: anatomy far wider than nature's, with labels.

Everything is painted back to front with soft edges: surroundings, fat, right ventricle, left ventricle. The
intensities are arbitrary; what an observer can rely on is what holds in every real image: blood differs from
the wall that encloses it, and the two ventricles touch. Slices run from plain (an upright heart in quiet
surroundings) to wild (any rotation, mirrored, crowded).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.labels import LV, MYO, RV
from model.phantom_canvas import Canvas
from model.phantom_clutter import Image, Tissues, draw_tissues, outline, paint_surroundings, paint_vessels
from model.phantom_contour import PI, Contour


def draw_slice(size: int, spacing_mm: float, rng: np.random.Generator) -> tuple[Image, NDArray[np.uint8]]:
    """One slice's true signal and labels, before any imaging.

    Args:
        size: side in pixels.
        spacing_mm: pixel size.
        rng: all randomness.

    Returns:
        signal ``(size, size)`` float32, labels ``(size, size)`` uint8.
    """
    wild = float(rng.random())
    canvas = _blank(size, spacing_mm, wild, rng)
    tissues = draw_tissues(wild, rng)
    paint_surroundings(canvas, tissues, wild, rng)
    kind = rng.choice(["middle", "base", "apex", "none"], p=[0.55, 0.22, 0.14, 0.09])
    if kind == "none":
        paint_vessels(canvas, tissues, rng, int(rng.integers(0, 4)), reach_mm=40.0)
    else:
        _paint_heart(canvas, tissues, str(kind), wild, rng)
    return canvas.signal, canvas.labels


def _blank(size: int, spacing_mm: float, wild: float, rng: np.random.Generator) -> Canvas:
    half = (size - 1) / 2
    grid = (np.arange(size, dtype=np.float32) - half) * spacing_mm
    y, x = np.meshgrid(grid - rng.uniform(-20, 20), grid - rng.uniform(-20, 20), indexing="ij")
    upright = rng.random() > 0.6 * wild
    angle = PI + rng.normal(0, 0.3 + 0.4 * wild) if upright else rng.uniform(-PI, PI)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    mirror = np.float32(-1 if rng.random() < 0.3 * wild else 1)
    flat = np.zeros((size, size), np.float32)
    texture = _textures(size, spacing_mm, rng)
    turned_y, turned_x = mirror * (c * y - s * x), s * y + c * x
    return Canvas(flat, flat.astype(np.uint8), turned_y, turned_x, spacing_mm, texture)


def _textures(size: int, spacing_mm: float, rng: np.random.Generator) -> Image:
    fields = []
    for grain_mm in (1.6, 5.0, 16.0):
        field = ndimage.gaussian_filter(
            rng.standard_normal((size, size), np.float32), grain_mm / spacing_mm, truncate=2.5
        )
        fields.append(field / (field.std() + 1e-6))
    return np.stack(fields)


def _paint_heart(canvas: Canvas, tissues: Tissues, kind: str, wild: float, rng: np.random.Generator) -> None:
    cavity, epicardium = _left_outlines(kind, rng)
    right_chance = {"middle": 0.93, "base": 0.97, "apex": 0.5}[kind]
    right = _right_outline(epicardium.cosines[0], kind, wild, rng) if rng.random() < right_chance else None
    _paint_envelope(canvas, tissues, epicardium, right, wild, rng)
    if right is not None:
        _paint_right(canvas, tissues, right, rng)
    if kind == "base" and rng.random() < wild:
        _paint_atria(canvas, tissues, epicardium.cosines[0], rng)
    _paint_left(canvas, tissues, cavity, epicardium, kind, rng)


def _left_outlines(kind: str, rng: np.random.Generator) -> tuple[Contour, Contour]:
    """Cavity and epicardium; at the apex the cavity may be a few millimetres."""
    if kind == "apex":
        radius, thickness = rng.uniform(1.5, 13), rng.uniform(4, 13)
    else:
        radius = rng.uniform(6.5, 38)
        thickness = rng.uniform(4, 17) if radius < 25 else rng.uniform(3.5, 12)
    cavity = outline(0, 0, radius, rng.uniform(0.02, 0.16), rng)
    uneven = outline(0, 0, thickness, rng.uniform(0.03, 0.3), rng)
    cosines = tuple(a + b for a, b in zip(cavity.cosines, uneven.cosines, strict=True))
    sines = tuple(a + b for a, b in zip(cavity.sines, uneven.sines, strict=True))
    return cavity, Contour(0.0, 0.0, cosines, sines)


def _right_outline(epicardial_radius_mm: float, kind: str, wild: float, rng: np.random.Generator) -> Contour:
    """The free wall; the cavity is what it encloses beyond the septum."""
    widest = {"middle": 42.0, "base": 55.0, "apex": 18.0}[kind]
    width = min(widest, epicardial_radius_mm * rng.uniform(0.35 - 0.2 * wild, 1.0 + 0.6 * wild))
    wrap = (
        rng.uniform(-0.2 * wild, 0.6) * epicardial_radius_mm
    )  # how far the outline reaches behind the LV's axis
    seat = max(0.4 * epicardial_radius_mm, (epicardial_radius_mm + width - wrap) / 2)
    along = epicardial_radius_mm + width - seat
    across = max(epicardial_radius_mm * rng.uniform(0.85 - 0.15 * wild, 1.25), 0.65 * along)
    mean, stretch = (along + across) / 2, (along - across) / 2
    ripple = outline(0, 0, mean, 0.08, rng)
    cosines = (mean, ripple.cosines[1], stretch + ripple.cosines[2], *ripple.cosines[3:])
    return Contour(rng.normal(0, 0.05 + 0.2 * wild) * epicardial_radius_mm, -seat, cosines, ripple.sines)


def _paint_envelope(
    canvas: Canvas,
    tissues: Tissues,
    epicardium: Contour,
    right: Contour | None,
    wild: float,
    rng: np.random.Generator,
) -> None:
    """Pericardial fat or fluid in patches around both ventricles, then the right ventricle's thin wall."""
    signal = tissues.fat if rng.random() < 0.7 else rng.choice(tissues.organs)
    patchy = np.clip(rng.uniform(-1.2, 1.8) * (0.4 + 0.6 * wild) + canvas.texture[2], 0, 1)
    gap = rng.uniform(0.5, 9)
    for part in (epicardium, right):
        if part is not None:
            canvas.paint(canvas.cover(part.grown(gap + 2)) * patchy, signal)
    if right is not None:
        canvas.paint(canvas.cover(right.grown(rng.uniform(0.5, 4))), tissues.wall * rng.uniform(0.7, 1.3))


def _paint_right(canvas: Canvas, tissues: Tissues, right: Contour, rng: np.random.Generator) -> None:
    cover = canvas.cover(right)
    edge = np.clip(1 + right.beyond_mm(canvas.y_mm, canvas.x_mm) / rng.uniform(4, 15), 0, 1)
    trabeculae = np.clip(canvas.texture[0] - rng.uniform(0.3, 2.0), 0, 1) * edge
    shade = 1 + rng.uniform(0, 0.15) * canvas.texture[2]
    signal = tissues.right_blood * shade
    canvas.paint(cover, (signal + trabeculae * (tissues.wall - signal)).astype(np.float32))
    canvas.labels[cover > 0.5] = RV


def _paint_atria(
    canvas: Canvas, tissues: Tissues, epicardial_radius_mm: float, rng: np.random.Generator
) -> None:
    """Atria and outflow tracts beside the ventricles: blood that is not labelled."""
    for _ in range(int(rng.integers(1, 3))):
        angle = rng.uniform(-PI, PI)
        reach = epicardial_radius_mm + rng.uniform(4, 30)
        shape = outline(reach * np.sin(angle), reach * np.cos(angle), rng.uniform(5, 20), 0.15, rng)
        free = (canvas.labels == 0).astype(np.float32)
        canvas.paint(canvas.cover(shape.grown(2.5)) * free, tissues.wall)
        canvas.paint(canvas.cover(shape) * free, tissues.blood * rng.uniform(0.7, 1.1))


def _paint_left(
    canvas: Canvas,
    tissues: Tissues,
    cavity: Contour,
    epicardium: Contour,
    kind: str,
    rng: np.random.Generator,
) -> None:
    wall, inside = canvas.cover(epicardium), canvas.cover(cavity)
    inside = np.minimum(inside, wall)
    muscle = tissues.wall * (1 + rng.uniform(0, 0.12) * canvas.texture[rng.integers(0, 3)])
    canvas.paint(wall, muscle.astype(np.float32))
    canvas.paint(inside, _left_blood(canvas, tissues, cavity, kind, rng))
    canvas.labels[wall > 0.5] = MYO
    canvas.labels[inside > 0.5] = LV


def _left_blood(
    canvas: Canvas, tissues: Tissues, cavity: Contour, kind: str, rng: np.random.Generator
) -> Image:
    """Blood with papillary muscles, trabeculae at the rim, uneven flow; at the apex blurred with the wall."""
    radius = cavity.cosines[0]
    depth = -cavity.beyond_mm(canvas.y_mm, canvas.x_mm)
    rim = np.clip(1 - depth / (rng.uniform(0.02, 0.45) * radius + 0.5), 0, 1)
    muscle = rim * np.clip(canvas.texture[0] + rng.uniform(-1.5, 0.8), 0, 1)
    for _ in range(int(rng.choice([0, 1, 2, 3, 4], p=[0.15, 0.2, 0.4, 0.15, 0.1]))):
        angle, reach = rng.uniform(-PI, PI), radius * rng.uniform(0.4, 0.95)
        size = np.clip(radius * rng.uniform(0.1, 0.36), 1.5, 9)
        shape = outline(reach * np.sin(angle), reach * np.cos(angle), size, 0.15, rng)
        muscle = np.maximum(muscle, canvas.cover(shape) * rng.uniform(0.5, 1))
    mixing = rng.uniform(0, 0.8) if kind == "apex" else max(0.0, rng.normal(0, 0.15))
    signal = tissues.blood * (1 + rng.uniform(0, 0.12) * canvas.texture[2])
    muscle = np.maximum(muscle, min(mixing, 0.85))
    mixed: Image = (signal + muscle * (tissues.wall - signal)).astype(np.float32)
    return mixed
