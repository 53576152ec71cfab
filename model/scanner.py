"""What each scanner makes of the same tissue: contrast, coil, resolution, noise, scale.

Four signatures that differ enough for a network trained on one to suffer on the others, each still legible.
Follows the rule of ``model/exact.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.exact import Floats, bell, between, blur, fall_off


@dataclass(frozen=True)
class Contrast:
    """Signal of the tissues, 0 … 1 before the scanner's scale."""

    blood: float
    wall: float
    fat: float
    lung: float
    muscle: float
    liver: float
    spleen: float
    bone: float
    bowel: float


@dataclass(frozen=True)
class Scanner:
    """One scanner and its protocol.

    Args:
        contrast: tissue signals.
        size_px: side of the image matrix.
        spacing_mm: in-plane pixel size.
        pitch_mm: distance of slice centres.
        slices: slices of a stack.
        blur_passes: [¼ ½ ¼] passes in plane; the blur's variance is half of it in pixels².
        coil: share of the signal that is lost far from the coil.
        coil_at: the coil's place, as shares of the image's height and width.
        noise: standard deviation of each of the two channels, in units of signal.
        ghost: strength of a copy displaced by half the image along y (motion in the phase direction).
        knee: bends the grey curve: signal s becomes s (1 + knee (1 − s)); positive lifts the dark.
        scale: stored value of signal 1.
    """

    contrast: Contrast
    size_px: int
    spacing_mm: float
    pitch_mm: float
    slices: int
    blur_passes: int
    coil: float
    coil_at: tuple[float, float]
    noise: float
    ghost: float
    knee: float
    scale: float


# A balanced-SSFP scanner of 1.5 T as textbooks show it: bright blood, dark wall, little noise.
TEXTBOOK = Scanner(
    Contrast(
        blood=0.72, wall=0.20, fat=0.92, lung=0.04, muscle=0.18, liver=0.30, spleen=0.42,
        bone=0.36, bowel=0.34,
    ),
    size_px=144, spacing_mm=1.5, pitch_mm=10.0, slices=10, blur_passes=1, coil=0.25, coil_at=(0.15, 0.45),
    noise=0.018, ghost=0.0, knee=0.0, scale=900.0,
)  # fmt: skip

# 3 T with a surface coil: the chest glows, the far wall drowns in noise.
SURFACE_COIL = Scanner(
    Contrast(
        blood=0.66, wall=0.26, fat=0.60, lung=0.05, muscle=0.24, liver=0.40, spleen=0.36,
        bone=0.22, bowel=0.42,
    ),
    size_px=160, spacing_mm=1.3, pitch_mm=9.0, slices=10, blur_passes=1, coil=0.72, coil_at=(0.05, 0.25),
    noise=0.042, ghost=0.03, knee=0.15, scale=420.0,
)  # fmt: skip

# An older gradient echo with coarse pixels: blood barely above the wall, liver above both, fat suppressed.
FLAT_CONTRAST = Scanner(
    Contrast(
        blood=0.54, wall=0.36, fat=0.24, lung=0.10, muscle=0.42, liver=0.66, spleen=0.50,
        bone=0.16, bowel=0.30,
    ),
    size_px=128, spacing_mm=1.75, pitch_mm=8.0, slices=12, blur_passes=2, coil=0.30, coil_at=(0.40, 0.95),
    noise=0.020, ghost=0.02, knee=0.35, scale=255.0,
)  # fmt: skip

# Sharp and hard: nearly black wall, saturated blood, ghosts of the beating heart.
HARD_CONTRAST = Scanner(
    Contrast(
        blood=0.95, wall=0.13, fat=0.70, lung=0.02, muscle=0.15, liver=0.17, spleen=0.60,
        bone=0.55, bowel=0.22,
    ),
    size_px=144, spacing_mm=1.4, pitch_mm=10.0, slices=9, blur_passes=0, coil=0.40, coil_at=(0.85, 0.70),
    noise=0.030, ghost=0.09, knee=-0.45, scale=3200.0,
)  # fmt: skip


def acquire(signal: Floats, scanner: Scanner, rng: np.random.Generator) -> NDArray[np.int16]:
    """The stored image of a true signal: blur, ghost, coil, grey curve, Rician noise, rounding.

    Args:
        signal: ``(Z, Y, X)`` tissue signal, 0 … about 1.
        scanner: its signature.
        rng: all randomness.

    Returns:
        ``(Z, Y, X)`` int16, 0 and above.
    """
    image = blur(np.maximum(signal, 0.0), scanner.blur_passes)
    if scanner.ghost > 0:
        image = image + scanner.ghost * _displaced(image)
    image = image * _coil(image.shape[1], image.shape[2], scanner, rng)
    image = image * (1 + scanner.knee * (1 - image))
    real = image + scanner.noise * bell(rng, image.shape)
    imaginary = scanner.noise * bell(rng, image.shape)
    magnitude = np.sqrt(real * real + imaginary * imaginary)
    scale = scanner.scale * between(rng, 0.85, 1.15)
    return np.clip(np.rint(magnitude * scale), 0, 32767).astype(np.int16)


def _displaced(image: Floats) -> Floats:
    rows = image.shape[1]
    displaced: Floats = np.take(image, (np.arange(rows) + rows // 2) % rows, axis=1)
    return displaced


def _coil(rows: int, columns: int, scanner: Scanner, rng: np.random.Generator) -> Floats:
    """1 at the coil, falling to 1 − ``coil`` at a distance of the image's side."""
    cy = rows * (scanner.coil_at[0] + between(rng, -0.08, 0.08))
    cx = columns * (scanner.coil_at[1] + between(rng, -0.08, 0.08))
    dy = ((np.arange(rows) - cy) / (0.55 * rows))[:, None]
    dx = ((np.arange(columns) - cx) / (0.55 * columns))[None, :]
    near = fall_off(np.sqrt(dy * dy + dx * dx))
    return (1 - scanner.coil) + scanner.coil * near
