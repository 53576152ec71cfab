"""Domain-randomised training slices: the base learns the heart's shape from them, not one scanner's greys.

No patient is behind them, so a base trained on them may travel without a licence. Deterministic for a given
generator; unlike the synthetic cohort, not bit for bit across machines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.errors import GeometryError
from model.phantom_clutter import Image
from model.phantom_random import draw_slice


def random_slices(
    n: int, size: int, spacing_mm: float, rng: np.random.Generator
) -> tuple[Image, NDArray[np.uint8]]:
    """Draw ``n`` short-axis slices with labels; anatomy, tissue, surroundings and scanner are random.

    Args:
        n: how many.
        size: side of the square in pixels, at least 32.
        spacing_mm: pixel size.
        rng: all randomness.

    Returns:
        images ``(n, size, size)`` float32, clipped and z-scored as scans are; labels uint8, same shape.

    Raises:
        GeometryError: ``size`` below 32 or ``spacing_mm`` not positive.

    Source: Billot et al., "SynthSeg", Medical Image Analysis 2023, for learning from randomised contrast;
    here the labels are random too.
    """
    if size < 32 or not spacing_mm > 0:
        raise GeometryError(
            f"no heart fits on {size} pixels of {spacing_mm} mm",
            "random_slices",
            "ask for 32 pixels or more and a positive spacing",
        )
    images = np.empty((n, size, size), np.float32)
    labels = np.empty((n, size, size), np.uint8)
    for i in range(n):
        signal, labels[i] = draw_slice(size, spacing_mm, rng)
        images[i] = normalise(image_of(signal, spacing_mm, rng), rng)
    return images, labels


def image_of(signal: Image, spacing_mm: float, rng: np.random.Generator) -> Image:
    """Pass a true signal through a random scanner: resolution, ghosts, coil bias, noise, contrast.

    Args:
        signal: ``(Y, X)`` float32, 0 and above.
        spacing_mm: pixel size.
        rng: all randomness.

    Returns:
        ``(Y, X)`` float32, from 0 to 1.
    """
    image = _resolve(np.clip(signal, 0, None), spacing_mm, rng)
    if rng.random() < 0.25:
        image = _ghost(image, rng)
    image = image * _bias(image.shape, rng)
    image = _rician(image, rng)
    top = float(image.max()) + 1e-6
    return np.asarray((image / top) ** rng.uniform(0.65, 1.5), np.float32)


def normalise(image: Image, rng: np.random.Generator) -> Image:
    """Clip to the 1st and about the 99th percentile, z-score, and jitter.

    A scan is normalised as a volume and beyond the crop, so a slice's own mean is rarely 0 and its own
    standard deviation rarely 1.
    """
    low, high = np.percentile(image, [1, rng.uniform(97.5, 99.8)])
    image = np.clip(image, low, high)
    image = (image - image.mean()) / (image.std() + 1e-6)
    return np.asarray(image * rng.uniform(0.75, 1.3) + rng.normal(0.1, 0.25), np.float32)


def _resolve(image: Image, spacing_mm: float, rng: np.random.Generator) -> Image:
    """Blur, and now and then acquire fewer lines along one axis and interpolate them."""
    sigma = rng.uniform(0.3, 2.2, 2) / spacing_mm
    image = ndimage.gaussian_filter(image, sigma, truncate=3)
    if rng.random() < 0.3:
        axis, n = int(rng.integers(0, 2)), image.shape[0]
        lines = int(n / rng.uniform(1.1, 1.9))
        image = _interpolate(_interpolate(image, lines, axis), n, axis)
    return image


def _interpolate(image: Image, lines: int, axis: int) -> Image:
    """Linear interpolation to ``lines`` lines from the first to the last along one axis."""
    position = np.linspace(0, image.shape[axis] - 1, lines)
    before = np.minimum(position.astype(np.int64), image.shape[axis] - 2)
    share = (position - before).astype(np.float32)
    share = share[:, None] if axis == 0 else share[None, :]
    between: Image = np.take(image, before, axis) * (1 - share) + np.take(image, before + 1, axis) * share
    return between


def _ghost(image: Image, rng: np.random.Generator) -> Image:
    axis, shift = int(rng.integers(0, 2)), int(rng.integers(image.shape[0] // 6, image.shape[0]))
    return image + np.float32(rng.uniform(0.02, 0.15)) * np.roll(image, shift, axis)


def _bias(shape: tuple[int, ...], rng: np.random.Generator) -> Image:
    """exp of a smooth random surface of the second order."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side, dtype=np.float32) for side in shape), indexing="ij")
    a = rng.normal(0, rng.uniform(0, 0.35), 5).astype(np.float32)
    bias: Image = np.exp(a[0] * y + a[1] * x + a[2] * y * y + a[3] * x * x + a[4] * x * y)
    return bias


def _rician(image: Image, rng: np.random.Generator) -> Image:
    level = np.float32(rng.uniform(0.005, 0.08) * (image.std() * 2 + 1e-6))
    noise = rng.standard_normal((2, *image.shape), np.float32) * level
    magnitude: Image = np.sqrt((image + noise[0]) ** 2 + noise[1] ** 2)
    return magnitude
