"""Names beside points, where they cover no other name, point or line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, BboxBase
from numpy.typing import NDArray

from tasks.plots import INK, QUIET, plain

_LABEL_PT = 7.5


def place_labels(
    figure: Figure,
    axes: Axes,
    points: Sequence[tuple[str, float, float]],
    front: Sequence[tuple[float, float]],
) -> None:
    """Name every point where the name covers no name, point or front; a thin line leads to far ones."""
    figure.draw_without_rendering()
    dots = axes.transData.transform([(x, y) for _, x, y in points])
    pixel = figure.dpi / 72
    taken = [Bbox([dot - 5 * pixel, dot + 5 * pixel]) for dot in dots]
    taken += _stairs(axes.transData.transform(front), pixel)
    for (method, x, y), dot in sorted(zip(points, dots, strict=True), key=lambda item: -item[0][2]):
        width, height = _extent(axes, plain(method))
        offset, box = free_place(dot, width, height, pixel, taken, axes.bbox)
        taken.append(box)
        far = math.hypot(*offset) > 16
        label = axes.annotate(
            plain(method),
            (x, y),
            offset,
            textcoords="offset points",
            fontsize=_LABEL_PT,
            color=INK,
            va="center",
            ha="left" if offset[0] >= 0 else "right",
            arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.5, "shrinkB": 4} if far else None,
        )
        label.set_in_layout(False)


def _stairs(corners: NDArray[np.float64], width: float) -> list[Bbox]:
    """Thin boxes along the front: right from every point, then up to the next."""
    boxes = []
    for (x, y), (x_next, y_next) in pairwise(corners.tolist()):
        boxes += [
            Bbox([(x, y - width), (x_next, y + width)]),
            Bbox([(x_next - width, y), (x_next + width, y_next)]),
        ]
    return boxes


def _extent(axes: Axes, text: str) -> tuple[float, float]:
    """Width and height in pixels."""
    trial = axes.text(0.5, 0.5, text, fontsize=_LABEL_PT, transform=axes.transAxes)
    box = trial.get_window_extent()
    trial.remove()
    return box.width, 1.15 * box.height


def free_place(
    dot: NDArray[np.float64],
    width: float,
    height: float,
    pixel: float,
    taken: Sequence[Bbox],
    frame: BboxBase,
) -> tuple[tuple[float, float], Bbox]:
    """Where a name goes.

    Args:
        dot: ``(2,)`` the point, in pixels.
        width: of the name, in pixels.
        height: of the name, in pixels.
        pixel: pixels per point.
        taken: boxes it should not cover, in pixels.
        frame: what it should stay within.

    Returns:
        The nearest offset from the dot, in points, whose box hits fewest others, and that box.
    """
    best: tuple[int, tuple[float, float], Bbox] | None = None
    for x, y in _offsets():
        left = dot[0] + x * pixel - (width if x < 0 else 0)
        bottom = dot[1] + y * pixel - height / 2
        box = Bbox.from_bounds(left, bottom, width, height)
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        hits = sum(box.overlaps(other) for other in taken) + (0 if inside else 100)
        if best is None or hits < best[0]:
            best = (hits, (x, y), box)
        if not hits:
            break
    assert best is not None
    return best[1], best[2]


def _offsets() -> Iterator[tuple[float, float]]:
    """Places around a point in points, the nearest first, right before left."""
    for radius in range(8, 150, 6):
        for degrees in (0, 180, 20, -20, 160, -160, 40, -40, 140, -140, 60, -60, 120, -120):
            angle = math.radians(degrees)
            yield radius * math.cos(angle), radius * math.sin(angle)
