"""Beating-heart short-axis phantoms: a patient drawn once, rendered at ED and ES, with true volumes in ml.

Follows the rule of ``model/exact.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.exact import Floats, between, sin_cos
from model.labels import LV, MYO, RV
from model.phantom_anatomy import Heart, Outlines, Phase, draw_heart, outlines_at
from model.phantom_canvas import Canvas
from model.phantom_contour import Contour, Field
from model.phantom_torso import Torso, draw_torso, paint_torso
from model.scanner import Contrast, Scanner


@dataclass(frozen=True)
class Patient:
    """Everything about a phantom that does not change while the heart beats.

    Args:
        heart: its sizes and motion.
        torso: its surroundings.
        top_mm: height of the first slice below the base at ED; negative lies in the atria.
        shifts_mm: ``(y, x)`` of every slice, from breath-holds at different depths.
        at_mm: ``(y, x)`` of the heart's axis from the image's centre.
        seed: of the textures, the same at ED and ES.
    """

    heart: Heart
    torso: Torso
    top_mm: float
    shifts_mm: tuple[tuple[float, float], ...]
    at_mm: tuple[float, float]
    seed: int


def draw_patient(group: str, slices: int, rng: np.random.Generator) -> Patient:
    """Draw a patient of this pathology group.

    Args:
        group: one of ``model.phantom_anatomy.GROUPS``.
        slices: of the stack, 1 or more.
        rng: all randomness.

    Returns:
        The phantom: heart, torso, its place in the image, and a shift for each of the slices.
    """
    heart = draw_heart(group, rng)
    shifts = tuple((between(rng, -1.6, 1.6), between(rng, -1.6, 1.6)) for _ in range(slices))
    return Patient(
        heart=heart,
        torso=draw_torso(rng),
        top_mm=between(rng, -5, 6),
        shifts_mm=shifts,
        at_mm=(between(rng, -12, 12), between(rng, -4, 20)),
        seed=int(rng.integers(0, 1 << 31)),
    )


def volumes_ml(patient: Patient, scanner: Scanner) -> tuple[float, float]:
    """True EDV and ESV of the left ventricle: Σ over slices of the cavity's exact area × slice distance.

    What a perfect reader of the stack would measure, free of pixels.

    Args:
        patient: the phantom.
        scanner: gives the slices' number and distance.

    Returns:
        EDV and ESV in ml.
    """
    return _cavity_ml(patient, scanner, "ED"), _cavity_ml(patient, scanner, "ES")


def render(patient: Patient, phase: Phase, scanner: Scanner) -> tuple[Floats, NDArray[np.uint8]]:
    """The true tissue signal and labels of a stack, base first, before the scanner's imaging.

    Args:
        patient: the phantom, drawn for at least ``scanner.slices`` slices.
        phase: ED or ES.
        scanner: matrix, spacing, slices and contrast.

    Returns:
        signal ``(Z, Y, X)`` float64, labels ``(Z, Y, X)`` uint8; rows run
        to the back, columns to the left side.
    """
    rng = np.random.Generator(np.random.Philox(patient.seed))
    slices = [_slice(patient, phase, scanner, z, rng) for z in range(scanner.slices)]
    return np.stack([c.signal for c in slices]), np.stack([c.labels for c in slices])


def _cavity_ml(patient: Patient, scanner: Scanner, phase: Phase) -> float:
    total_mm3 = 0.0
    for z in range(scanner.slices):
        cavity = outlines_at(patient.heart, phase, patient.top_mm + z * scanner.pitch_mm).cavity
        if cavity is not None:
            area = cavity.area_mm2()
            total_mm3 = total_mm3 + area * scanner.pitch_mm
    return total_mm3 / 1000


def _slice(patient: Patient, phase: Phase, scanner: Scanner, z: int, rng: np.random.Generator) -> Canvas:
    depth = patient.top_mm + z * scanner.pitch_mm
    canvas = _blank(patient, scanner, z)
    paint_torso(canvas, patient.torso, depth, scanner.contrast, rng)
    outlines = outlines_at(patient.heart, phase, depth)
    if outlines.epicardium is None:
        _paint_beyond(canvas, patient.heart, depth, scanner.contrast)
    else:
        _paint_envelope(canvas, outlines, outlines.epicardium, scanner.contrast)
        _paint_right(canvas, outlines, scanner.contrast)
        _paint_left(canvas, patient.heart, outlines, outlines.epicardium, scanner.contrast)
    return canvas


def _blank(patient: Patient, scanner: Scanner, z: int) -> Canvas:
    side = scanner.size_px
    grid = (np.arange(side) - (side - 1) / 2) * scanner.spacing_mm
    shift_y, shift_x = patient.shifts_mm[z]
    rows = grid - (patient.at_mm[0] + shift_y)
    columns = grid - (patient.at_mm[1] + shift_x)
    y: Floats = np.repeat(rows[:, None], side, axis=1)
    x: Floats = np.repeat(columns[None, :], side, axis=0)
    empty = np.zeros((side, side))
    return Canvas(
        empty, np.zeros((side, side), np.uint8), y, x, scanner.spacing_mm, np.zeros((3, side, side))
    )


def _paint_beyond(canvas: Canvas, heart: Heart, depth_mm: float, contrast: Contrast) -> None:
    """Above the base: left atrium and right atrium, thin-walled and unlabelled. Below the apex: fat."""
    if depth_mm > 0.6 * heart.length_mm:
        tip = Contour(0.0, 0.0, (7.0,))
        canvas.paint(canvas.cover(tip) * 0.8, contrast.fat)
        return
    s, c = sin_cos(heart.septal_rad)
    radius, reach = 0.95 * heart.cavity_mm, heart.cavity_mm + 0.5 * heart.right_mm
    left = Contour(6.0, 0.0, (radius, 0.0, 0.18 * radius), (0.0, 0.05 * radius))
    right = Contour(reach * s, reach * c, (0.75 * radius, 0.0, 0.1 * radius), (0.0, 0.1 * radius))
    shade = 1 + 0.06 * canvas.texture[2]
    for atrium in (right, left):
        canvas.paint(canvas.cover(atrium.grown(5.0)) * 0.8, contrast.fat)
    for atrium in (right, left):
        canvas.paint(canvas.cover(atrium.grown(2.0)), contrast.wall)
        canvas.paint(canvas.cover(atrium), 0.95 * contrast.blood * shade)


def _paint_envelope(canvas: Canvas, outlines: Outlines, epicardium: Contour, contrast: Contrast) -> None:
    """Pericardial fat in patches around both ventricles, and the right ventricle's thin wall."""
    patchy = np.clip(0.6 + 1.4 * canvas.texture[2], 0, 1)
    canvas.paint(canvas.cover(epicardium.grown(3.0)) * patchy, contrast.fat)
    if outlines.right is not None:
        canvas.paint(canvas.cover(outlines.right.grown(7.0)) * patchy, contrast.fat)
        canvas.paint(canvas.cover(outlines.right.grown(2.6)), contrast.wall)


def _paint_right(canvas: Canvas, outlines: Outlines, contrast: Contrast) -> None:
    if outlines.right is None:
        return
    cover = canvas.cover(outlines.right)
    edge = np.clip(1 + outlines.right.beyond_mm(canvas.y_mm, canvas.x_mm) / 9.0, 0, 1)
    trabeculae = edge * np.clip(2.5 * canvas.texture[1], 0, 1) * 0.8
    canvas.paint(cover, _blood(canvas, contrast, 0.97, trabeculae))
    canvas.labels[cover >= 0.5] = RV


def _paint_left(
    canvas: Canvas, heart: Heart, outlines: Outlines, epicardium: Contour, contrast: Contrast
) -> None:
    wall = canvas.cover(epicardium)
    canvas.paint(wall, contrast.wall * (1 + 0.06 * canvas.texture[1]))
    canvas.labels[wall >= 0.5] = MYO
    if outlines.cavity is None:
        return
    inside = np.minimum(canvas.cover(outlines.cavity), wall)
    canvas.paint(inside, _blood(canvas, contrast, 1.0, _muscles(canvas, heart, outlines.cavity)))
    canvas.labels[inside >= 0.5] = LV


def _blood(canvas: Canvas, contrast: Contrast, share: float, muscle: Field) -> Field:
    """Blood with muscle in it, 0 none … 1 all."""
    signal = share * contrast.blood * (1 + 0.05 * canvas.texture[2])
    mixed: Field = signal + muscle * (contrast.wall - signal)
    return mixed


def _muscles(canvas: Canvas, heart: Heart, cavity: Contour) -> Field:
    """Two papillary muscles and the trabeculae at the rim, as shares of the pixel; labelled as cavity."""
    radius = cavity.cosines[0]
    rim = np.clip(1 + cavity.beyond_mm(canvas.y_mm, canvas.x_mm) / (0.22 * radius), 0, 1)
    muscle: Field = rim * np.clip(1.6 * canvas.texture[1], 0, 1)
    for side, size in ((1.9, 4.2), (-2.1, 3.6)):
        s, c = sin_cos(heart.septal_rad + side)
        reach, thick = 0.66 * radius, min(size, 0.22 * radius)
        papilla = Contour(reach * s, reach * c, (thick, 0.0, 0.2 * thick), (0.0, 0.15 * thick))
        muscle = np.maximum(muscle, 0.9 * canvas.cover(papilla))
    return muscle
