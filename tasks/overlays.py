"""Pictures of a site's best, median and worst case. They show patients' images: they stay at the site."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from model.labels import STRUCTURES
from tasks.evaluate import Segmentation
from tasks.files import write_atomic
from tasks.plots import INK, QUIET, draw_png, plain

COLOURS = {"RV": "#56B4E9", "MYO": "#F0E442", "LV": "#D55E00"}
RANKS = ("best", "median", "worst")
LEVELS = {"base": 0.15, "mid": 0.5, "apex": 0.85}
"""Where along the stack of slices that hold heart, from its wide end."""
MARGIN_MM = 18.0
BAR_MM = 20.0
DPI, WIDTH_IN = 130, 9.0


def render_overlays(
    cases: pd.DataFrame, segment: Callable[[pd.Series], Segmentation], folder: Path
) -> tuple[Path, ...]:
    """Draw the best, the median and the worst patient × phase by mean foreground Dice.

    Args:
        cases: one site, one model: a row per patient × phase × structure with ``dice``.
        segment: the case of one such row, as image, truth and prediction.
        folder: where ``best.png``, ``median.png`` and ``worst.png`` go.

    Returns:
        The files written; with fewer than three cases some show the same one, and without a defined Dice there
        are none.

    Raises:
        DiskError: a file could not be written.
    """
    means = cases.groupby(["patient", "phase"])["dice"].mean().dropna().sort_index()
    if means.empty:
        return ()
    ordered = means.sort_values(ascending=False, kind="stable").index
    chosen = dict(zip(RANKS, (ordered[0], ordered[len(ordered) // 2], ordered[-1]), strict=True))
    return tuple(_write(cases, rank, key, segment, folder) for rank, key in chosen.items())


def _write(
    cases: pd.DataFrame,
    rank: str,
    key: tuple[str, str],
    segment: Callable[[pd.Series], Segmentation],
    folder: Path,
) -> Path:
    patient, phase = key
    rows = cases[(cases["patient"] == patient) & (cases["phase"] == phase)]
    dice = rows.set_index("structure")["dice"].to_dict()
    parts = ", ".join(f"{name} {_number(dice.get(name, float('nan')))}" for name in STRUCTURES)
    mean = _number(float(rows["dice"].mean()))
    caption = f"{rank.capitalize()}: patient {patient}, {phase}   Dice {mean} ({parts})"
    path = folder / f"{rank}.png"
    write_atomic(path, draw_overlay(segment(rows.iloc[0]), caption))
    return path


def draw_overlay(case: Segmentation, caption: str) -> bytes:
    """Base, mid and apex side by side, truth as outline and prediction as tint, as PNG."""
    rows, columns = _window(case)
    low, high = (float(v) for v in np.percentile(case.image[:, rows, columns], (1, 99)))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(LEVELS))
        for axes, (level, z) in zip(panels, heart_slices(case).items(), strict=True):
            _draw_slice(axes, case, z, (rows, columns), (low, high))
            axes.set_title(f"{level}, slice {z + 1} of {len(case.image)}", fontsize=8.5, color=QUIET)
        _draw_scale(panels[0], case, rows)
        figure.suptitle(plain(caption), x=0.01, ha="left", fontsize=10, color=INK)
        figure.legend(handles=_keys(), loc="outside lower center", ncols=5, fontsize=8, frameon=False)

    return draw_png((WIDTH_IN, _height_in(case, rows, columns)), draw, DPI)


def heart_slices(case: Segmentation) -> dict[str, int]:
    """Slice index of base, mid and apex: the heart is wider at its base.

    Slices with truth count; where the truth is empty those with prediction; without either all of them.
    """
    for labels in (case.truth, case.prediction, np.ones_like(case.truth)):
        area = (labels > 0).sum(axis=(1, 2))
        held = np.flatnonzero(area)
        if len(held):
            break
    half = len(held) // 2
    if area[held[len(held) - half :]].sum() > area[held[:half]].sum():
        held = held[::-1]
    return {level: int(held[round(part * (len(held) - 1))]) for level, part in LEVELS.items()}


def _window(case: Segmentation) -> tuple[slice, slice]:
    """Rows and columns round the heart with a margin, the same for all slices."""
    heart = np.maximum(case.truth, case.prediction).max(axis=0) > 0
    if not heart.any():
        return slice(0, heart.shape[0]), slice(0, heart.shape[1])
    spans = []
    for axis, spacing_mm in ((1, case.spacing_mm[1]), (0, case.spacing_mm[2])):
        held = np.flatnonzero(heart.any(axis=axis))
        margin = round(MARGIN_MM / spacing_mm)
        spans.append(slice(max(0, int(held[0]) - margin), int(held[-1]) + 1 + margin))
    return spans[0], spans[1]


def _height_in(case: Segmentation, rows: slice, columns: slice) -> float:
    """Three panels of the window's true shape fill the width; captions and legend take 0.95 inches."""
    height, width = case.truth[0, rows, columns].shape
    shape = height * case.spacing_mm[1] / (width * case.spacing_mm[2])
    return float(0.95 + WIDTH_IN / 3.1 * shape)


def _draw_slice(
    axes: Axes, case: Segmentation, z: int, window: tuple[slice, slice], grey: tuple[float, float]
) -> None:
    image, truth, prediction = (upright(v[z][window]) for v in (case.image, case.truth, case.prediction))
    aspect = case.spacing_mm[1] / case.spacing_mm[2]
    axes.imshow(image, cmap="gray", vmin=grey[0], vmax=max(grey[1], grey[0] + 1e-6), aspect=aspect)
    tint = np.zeros((*truth.shape, 4))
    for name, label in STRUCTURES.items():
        tint[prediction == label] = to_rgba(COLOURS[name], 0.42)
        outline(axes, truth == label, COLOURS[name])
    axes.imshow(tint, aspect=aspect, interpolation="nearest")
    axes.set_axis_off()


def outline(axes: Axes, mask: NDArray[np.bool_], colour: str) -> None:
    """Draw a mask's border along pixel edges, dark below so that it shows on bright and on dark."""
    if mask.any():
        padded = np.pad(mask.astype(float), 1)
        grid = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
        axes.contour(*grid, padded, levels=[0.5], colors=["black"], linewidths=2.2)
        axes.contour(*grid, padded, levels=[0.5], colors=[colour], linewidths=1.3)


def _draw_scale(axes: Axes, case: Segmentation, rows: slice) -> None:
    height = min(rows.stop, case.image.shape[1]) - rows.start
    length_px = BAR_MM / case.spacing_mm[2]
    bar = Rectangle((3, height - 5), length_px, 1.2, facecolor="white", edgecolor="black", linewidth=0.5)
    axes.add_patch(bar)
    axes.text(3, height - 6.5, f"{BAR_MM:.0f} mm", color="white", fontsize=8, va="bottom")


def _keys() -> list[Line2D | Patch]:
    tints: list[Line2D | Patch] = [Patch(facecolor=c, alpha=0.6, label=name) for name, c in COLOURS.items()]
    line = Line2D([], [], color=INK, linewidth=1.3, label="outline: truth")
    return [*tints, line, Patch(facecolor="#9aa3ad", alpha=0.6, label="tint: prediction")]


def upright(plane: NDArray[np.generic]) -> NDArray[np.generic]:
    """From native axes (y to anterior, x to right) to a radiologist's view: anterior up, right at left."""
    return plane[::-1, ::-1]


def _number(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.3f}"
