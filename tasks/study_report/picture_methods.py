"""The picture of methods: Dice with its interval, the best at the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.plots import INK, draw_png, plain
from tasks.study_report.picture_style import (
    OTHER,
    family_colours,
    family_legend,
    footnote,
    say_nothing_yet,
    style_axes,
)

LINES = ("zero-shot", "pooled")
"""Methods drawn as lines: what there is before training, and what sharing all images would give."""


def method_picture(
    methods: pd.DataFrame,
    families: Mapping[str, str] | None = None,
    left_out: Sequence[str] = (),
    lines: Sequence[str] = LINES,
) -> bytes:
    """Dice of every method with its interval, the best at the top, coloured by family.

    Args:
        methods: of ``method_table``.
        families: method → family, for the colours.
        left_out: methods that are named below instead of being drawn.
        lines: methods drawn as vertical lines over the whole picture.

    Returns:
        PNG; hollow marks are methods without a global model, judged on own patients. "nothing yet" without rows.
    """
    whole = methods[~methods.index.isin(list(left_out))]
    known = whole[whole["dice"].notna()] if len(whole) else whole
    rows = known[~known.index.isin(lines)].sort_values("dice") if len(known) else known
    colours = family_colours(families or {})
    family = {str(m): (families or {}).get(str(m), OTHER) for m in rows.index}
    below = footnote(left_out)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if not len(known):
            say_nothing_yet(axes, below)
            return
        for y, (method, row) in enumerate(rows.iterrows()):
            colour = colours[family[str(method)]]
            axes.plot([row["dice_low"], row["dice_high"]], [y, y], color=colour, linewidth=2)
            face = "white" if row["judged"] == "own" else colour
            axes.plot(row["dice"], y, "o", color=colour, mfc=face, markersize=6, zorder=3)
        axes.set_yticks(range(len(rows)), [plain(m) for m in rows.index])
        style_axes(axes, "Test Dice, mean of sites and seeds, 95 % interval over patients", f"Dice{below}")
        _draw_references(axes, {str(m): float(v) for m, v in known["dice"].items() if m in lines}, len(rows))
        family_legend(figure, colours, family, bool((rows["judged"] == "own").any()))

    return draw_png((7.6, 1.7 + 0.27 * max(len(rows), 3) + 0.15 * below.count("\n")), draw)


def _draw_references(axes: Axes, values: Mapping[str, float], rows: int) -> None:
    """Lines over the whole picture, their names below the lowest row, one under the other."""
    for value in values.values():
        axes.axvline(value, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), zorder=0)
    axes.margins(x=0.06)
    axes.set_ylim(-0.6 - 0.7 * len(values), max(rows, 1) - 0.4)
    middle = sum(axes.get_xlim()) / 2
    for place, (method, value) in enumerate(values.items()):
        right = value > middle
        axes.annotate(
            f"{plain(method)} {value:.3f}",
            (value, -0.85 - 0.7 * place),
            xytext=(-4 if right else 4, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="center",
            fontsize=8,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
