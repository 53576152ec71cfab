"""The picture of scenarios: what honest sites lose, with the rated merge and with the plain one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.plots import COLOURS, INK, QUIET, draw_png, plain
from tasks.study_report.picture_style import legend, say_nothing_yet, style_axes
from tasks.study_report.scenarios import POINT

_ASIDE = (-0.15, 0.15)
_FILLED, _HOLLOW = "o", "s"


def scenario_picture(scenarios: pd.DataFrame, rated: str = "rated", beside: str = "plain") -> bytes:
    """What honest sites lose per scenario, in points of Dice: with the rated merge and with the plain one.

    Args:
        scenarios: of ``scenario_table``; other methods and rows without a difference are not shown.
        rated: the method that is held to one point.
        beside: the one beside it.

    Returns:
        PNG, all on the left, around one point on the right; "nothing yet" without differences.
    """
    shown = scenarios[scenarios["difference"].notna()] if len(scenarios) else scenarios
    shown = shown[shown.index.isin((rated, beside), level="method")] if len(shown) else shown
    names = [str(n) for n in dict.fromkeys(shown.index.get_level_values("scenario"))] if len(shown) else []

    def draw(figure: Figure) -> None:
        if not names:
            say_nothing_yet(figure.subplots())
            return
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for axes in (left, right):
            axes.axvline(0, color=QUIET, linewidth=0.8)
            axes.axvline(-100 * POINT, color=INK, linewidth=1, linestyle=(0, (4, 2)), label="one point")
            for k, (method, marker) in enumerate(((rated, _FILLED), (beside, _HOLLOW))):
                _draw_losses(axes, shown, names, method, marker, k)
            axes.set_ylim(len(names) - 0.4, -0.6)
        left.set_yticks(range(len(names)), [plain(n) for n in names])
        style_axes(left, "Honest sites' Dice against the clean twin", "points of Dice")
        style_axes(right, "The same, near zero", "points of Dice")
        right.set_xlim(*_near_zero(shown, rated))
        _point_to_the_far(right, shown, names, (rated, beside))
        legend(figure, left.get_legend_handles_labels()[0])

    return draw_png((9.2, 1.6 + 0.34 * max(len(names), 4)), draw)


def _draw_losses(
    axes: Axes, shown: pd.DataFrame, names: Sequence[str], method: str, marker: str, k: int
) -> None:
    rows = [
        (y, shown.xs((name, method)).to_dict())
        for y, name in enumerate(names)
        if (name, method) in shown.index
    ]
    places = [y + _ASIDE[k] for y, _ in rows]
    for place, (_, row) in zip(places, rows, strict=True):
        axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=COLOURS[k], linewidth=1.8)
    means = [100 * row["difference"] for _, row in rows]
    face = COLOURS[k] if marker == _FILLED else "white"
    axes.plot(
        means, places, marker, color=COLOURS[k], mfc=face, markersize=5.5, label=plain(method), zorder=3
    )


def _point_to_the_far(axes: Axes, shown: pd.DataFrame, names: Sequence[str], methods: Sequence[str]) -> None:
    """A triangle at the edge for every mean beyond it."""
    low, high = axes.get_xlim()
    for (name, method), difference in zip(shown.index.tolist(), shown["difference"].tolist(), strict=True):
        value = 100 * difference
        if not low <= value <= high:
            k = methods.index(str(method))
            place = names.index(str(name)) + _ASIDE[k]
            edge, marker = (low, "<") if value < low else (high, ">")
            axes.plot(
                edge, place, marker, color=COLOURS[k], mfc="white", markersize=5, clip_on=False, zorder=4
            )


def _near_zero(shown: pd.DataFrame, rated: str) -> tuple[float, float]:
    """Limits in points that hold the one-point line and all of the rated method's, but at most 6 below."""
    ours = shown[shown.index.get_level_values("method") == rated]
    lowest = 100 * float(np.nanmin([0.0, *ours["low"], *ours["difference"]]))
    highest = 100 * float(np.nanmax([0.0, *ours["high"], *ours["difference"]]))
    return max(min(lowest, -100 * POINT) - 0.5, -6.0), min(max(highest, 0.5) + 0.3, 6.0)
