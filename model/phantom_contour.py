"""Closed outlines as Fourier series in the angle: how far a point lies beyond one, and the exact area inside.

Only ``+ − × ÷ √`` touch the points, so the answers are the same on every machine (see ``model/exact.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]
"""A float image, float32 or float64."""

PI = 3.141592653589793


@dataclass(frozen=True)
class Contour:
    """The outline r(θ) = a₀ + Σₖ aₖ cos kθ + bₖ sin kθ around a centre, all in mm; θ grows from x towards y.

    Args:
        y_mm: centre.
        x_mm: centre.
        cosines: a₀, a₁, … ; a₀ is the mean radius.
        sines: b₁, b₂, … ; as many as there are a₁, a₂, …, or none.
    """

    y_mm: float
    x_mm: float
    cosines: tuple[float, ...]
    sines: tuple[float, ...] = ()

    def beyond_mm(self, y_mm: Field, x_mm: Field) -> Field:
        """Measure how far points lie beyond the outline.

        Args:
            y_mm: any shape.
            x_mm: same shape.

        Returns:
            Radial distance in mm, negative inside; shape and dtype of ``y_mm``.
        """
        dy, dx = y_mm - self.y_mm, x_mm - self.x_mm
        r = np.sqrt(dy * dy + dx * dx) + 1e-6
        c, s = dx / r, dy / r
        outline, ck, sk = np.full_like(r, self.cosines[0]), c, s
        for k in range(1, len(self.cosines)):
            outline = outline + self.cosines[k] * ck
            if self.sines:
                outline = outline + self.sines[k - 1] * sk
            ck, sk = ck * c - sk * s, sk * c + ck * s
        beyond: Field = r - outline
        return beyond

    def area_mm2(self) -> float:
        """½ ∮ r² dθ = π (a₀² + ½ Σₖ aₖ² + bₖ²), by Parseval's theorem; needs r(θ) ≥ 0 everywhere."""
        total = self.cosines[0] * self.cosines[0]
        for a in self.cosines[1:] + self.sines:
            total = total + 0.5 * a * a
        return PI * total

    def grown(self, by_mm: float) -> Contour:
        """The outline moved outward along every ray by ``by_mm``."""
        return replace(self, cosines=(self.cosines[0] + by_mm, *self.cosines[1:]))
