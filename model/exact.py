"""Arithmetic whose bits are the same on every IEEE-754 machine, for the published synthetic cohort.

The cohort's hash is published, so x86-64 and arm64, with or without any SIMD level, must make the same files.
The rule of every module that imports this one:

- on arrays only ``+ − × ÷``, ``np.sqrt``, comparisons, ``np.abs``, ``np.minimum``, ``np.maximum``,
  ``np.clip``, ``np.where``, ``np.floor``, ``np.rint``, casts and copies, each its own numpy call (so that no
  compiler may fuse a product and a sum), in float64 and int64;
- no sin, cos, exp, log, power or arctan of a library: they differ in the last bit;
- no sum, mean, dot, matmul, einsum or cumsum of floats: their order of summation follows the SIMD width;
- random numbers only from ``Generator.random`` and ``Generator.integers`` of a named bit generator
  (``Generator.uniform`` computes low + range × u in C, which arm64 compilers fuse).

``tests/test_phantom.py`` walks the syntax trees of these modules for whatever breaks the rule.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TWO_PI = 6.283185307179586

_SINE = (1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800, 1 / 6227020800)
_COSINE = (1.0, -1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800, 1 / 479001600, -1 / 87178291200)


def sin_cos(angle_rad: float) -> tuple[float, float]:
    """Sine and cosine by their Taylor series within ± π/4, to 1e-13; any angle up to some thousand turns.

    Args:
        angle_rad: radians.

    Returns:
        The sine first, then the cosine.
    """
    quarter = int(np.rint(angle_rad / (TWO_PI / 4)))
    x = angle_rad - quarter * (TWO_PI / 4)
    s, c = x * _series(_SINE, x * x), _series(_COSINE, x * x)
    return ((s, c), (c, -s), (-s, -c), (-c, s))[quarter & 3]


def fall_off(x: Floats) -> Floats:
    """A bell like exp(−x²): (1 + x²/8)⁻⁸, by squaring. 1 at 0, within .06 of the Gaussian."""
    base = 1 / (1 + x * x / 8)
    squared = base * base
    fourth = squared * squared
    return fourth * fourth


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """One number, uniform from ``low`` to ``high``."""
    share = float(rng.random())
    width = high - low
    return low + width * share


def bell(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Zero-mean unit-variance noise, nearly normal: the sum of six uniforms (Irwin-Hall), added in order."""
    total = rng.random(shape)
    for _ in range(5):
        total = total + rng.random(shape)
    return (total - 3.0) * 1.4142135623730951


def blur(image: Floats, passes: int) -> Floats:
    """Blur rows and columns of the last two axes by [¼ ½ ¼], ``passes`` times; edges are repeated.

    The variance is ``passes`` / 2 pixels².
    """
    for _ in range(passes):
        for axis in (-1, -2):
            image = _quarter_half_quarter(image, axis)
    return image


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], grain: int) -> Floats:
    """Draw a random field whose features are about ``grain`` pixels wide: bilinear value noise.

    Args:
        rng: all randomness.
        shape: Y, X.
        grain: pixels between independent values, at least 1.

    Returns:
        ``(Y, X)`` float64, from −1 to 1.
    """
    rows, cols = (side // grain + 2 for side in shape)
    knots = 2 * rng.random((rows, cols)) - 1
    down = _stretch(knots, shape[0], grain)
    return _stretch(down.T, shape[1], grain).T.copy()


def _series(coefficients: tuple[float, ...], x: float) -> float:
    total = 0.0
    for a in reversed(coefficients):
        total = total * x + a
    return total


def _quarter_half_quarter(image: Floats, axis: int) -> Floats:
    last = image.shape[axis] - 1
    position = np.arange(last + 1)
    before = np.take(image, np.maximum(position - 1, 0), axis)
    after = np.take(image, np.minimum(position + 1, last), axis)
    blurred: Floats = 0.25 * before + 0.5 * image + 0.25 * after
    return blurred


def _stretch(knots: Floats, side: int, grain: int) -> Floats:
    """Linear interpolation along axis 0 to ``side`` rows, with an eased weight."""
    position = np.arange(side)
    whole = position // grain
    share = ((position - whole * grain) / grain)[:, None]
    eased = share * share * (3 - 2 * share)
    start = knots[whole]
    step = knots[whole + 1] - start
    return start + eased * step
