"""Every slice of one phase with the contours that were found. It shows a patient's images: it stays at the site."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from model.labels import STRUCTURES
from tasks.overlays import COLOURS, outline, upright
from tasks.plots import INK, QUIET, draw_png, plain

COLUMNS, PANEL_IN, DPI = 4, 2.4, 110
MARGIN_MM = 25.0


def draw_contours(
    image: NDArray[np.float32],
    mask: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    caption: str,
) -> bytes:
    """All slices, in a radiologist's view, cut to the heart and its surroundings.

    Args:
        image: ``(Z, Y, X)`` on the native grid.
        mask: ``(Z, Y, X)`` labels on the same grid.
        spacing_mm: (z, y, x).
        caption: of the picture.

    Returns:
        PNG.
    """
    rows, columns = window(mask, spacing_mm)
    low, high = (float(value) for value in np.percentile(image[:, rows, columns], (1, 99)))
    depth = len(image)
    lines = -(-depth // COLUMNS)
    aspect = spacing_mm[1] / spacing_mm[2]
    height, width = image[0, rows, columns].shape

    def draw(figure: Figure) -> None:
        panels = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
        for z, axes in enumerate(panels):
            axes.set_axis_off()
            if z >= depth:
                continue
            plane = upright(image[z, rows, columns])
            axes.imshow(plane, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
            for name, label in STRUCTURES.items():
                outline(axes, upright(mask[z, rows, columns]) == label, COLOURS[name])
            axes.set_title(f"slice {z + 1}", fontsize=8, color=QUIET)
        figure.suptitle(plain(caption), x=0.01, ha="left", fontsize=10, color=INK)
        keys = [Line2D([], [], color=colour, label=name) for name, colour in COLOURS.items()]
        figure.legend(handles=keys, loc="outside lower center", ncols=3, fontsize=8, frameon=False)

    shape = height * aspect / width
    return draw_png((COLUMNS * PANEL_IN, 0.9 + lines * (PANEL_IN * shape + 0.25)), draw, DPI)


def window(mask: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> tuple[slice, slice]:
    """Rows and columns of the heart with 25 mm around it; all of them without a heart.

    Args:
        mask: ``(Z, Y, X)`` labels.
        spacing_mm: (z, y, x).

    Returns:
        The same for all slices.
    """
    heart = mask.max(axis=0) > 0
    if not heart.any():
        return slice(0, heart.shape[0]), slice(0, heart.shape[1])
    spans = []
    for axis, step_mm in ((1, spacing_mm[1]), (0, spacing_mm[2])):
        held = np.flatnonzero(heart.any(axis=axis))
        margin = round(MARGIN_MM / step_mm)
        spans.append(slice(max(0, int(held[0]) - margin), int(held[-1]) + 1 + margin))
    return spans[0], spans[1]
