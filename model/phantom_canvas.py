"""A slice under construction, painted back to front with soft edges.

Follows the rule of ``model/exact.py``; the randomised phantoms paint on the same canvas in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.phantom_contour import Contour, Field


@dataclass
class Canvas:
    """Signal and labels of one slice, and where its pixels lie.

    Args:
        signal: ``(Y, X)`` float.
        labels: ``(Y, X)`` uint8.
        y_mm: ``(Y, X)`` position of every pixel; the left ventricle's axis is at 0, 0.
        x_mm: ``(Y, X)``.
        spacing_mm: pixel size; edges are this wide.
        texture: ``(3, Y, X)`` zero-mean fields, fine to coarse.
    """

    signal: Field
    labels: NDArray[np.uint8]
    y_mm: Field
    x_mm: Field
    spacing_mm: float
    texture: Field

    def cover(self, outline: Contour) -> Field:
        """Fraction of every pixel inside the outline, 0 … 1, by its distance from the edge."""
        beyond = outline.beyond_mm(self.y_mm, self.x_mm)
        share: Field = np.clip(0.5 - beyond / self.spacing_mm, 0, 1)
        return share

    def paint(self, cover: Field, signal: float | Field) -> None:
        """Lay ``signal`` over what is there, as far as ``cover`` reaches."""
        change = cover * (signal - self.signal)
        self.signal += change
