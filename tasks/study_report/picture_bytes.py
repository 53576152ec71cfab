"""The picture of bytes: Dice against what a site uploads, with the front that no method beats on both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from tasks.findings import size
from tasks.plots import QUIET, draw_png
from tasks.study_report.label_places import place_labels
from tasks.study_report.picture_style import (
    OTHER,
    family_colours,
    family_legend,
    footnote,
    say_nothing_yet,
    style_axes,
)


def bytes_picture(
    methods: pd.DataFrame, families: Mapping[str, str] | None = None, left_out: Sequence[str] = ()
) -> bytes:
    """Dice against bytes uploaded per site and round, with the front that no method beats on both.

    Args:
        methods: of ``method_table``; those that upload nothing are not shown.
        families: method → family, for the colours.
        left_out: methods that are named below instead of being drawn.

    Returns:
        PNG; "nothing yet" when no method uploads.
    """
    rows = methods[~methods.index.isin(list(left_out))]
    rows = rows[(rows["upload_bytes"] > 0) & rows["dice"].notna()] if len(rows) else rows
    points = [(str(m), float(r["upload_bytes"]), float(r["dice"])) for m, r in rows.iterrows()]
    colours = family_colours(families or {})
    family = {m: (families or {}).get(m, OTHER) for m, *_ in points}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if not points:
            say_nothing_yet(axes, footnote(left_out))
            return
        front = pareto_front([(x, y) for _, x, y in points])
        axes.step(
            *zip(*front, strict=True), where="post", color=QUIET, linewidth=1, linestyle=(0, (4, 2)), zorder=1
        )
        for method, x, y in points:
            own = rows.at[method, "judged"] == "own"
            colour = colours[family[method]]
            axes.plot(x, y, "o", color=colour, mfc="white" if own else colour, markersize=6, zorder=3)
        axes.set_xscale("log")
        axes.margins(x=0.22, y=0.14)
        axes.xaxis.set_major_formatter(lambda value, _: size(value).replace(".0 ", " ").replace(".00 ", " "))
        axes.xaxis.set_minor_formatter(NullFormatter())
        title = "Test Dice against bytes; dashed: no method is better with as few bytes"
        words = f"uploaded per site and round, logarithmic{footnote(left_out)}"
        style_axes(axes, title, words, "both")
        axes.set_ylabel("Dice", fontsize=8, color=QUIET)
        family_legend(figure, colours, family, bool((rows["judged"] == "own").any()))
        place_labels(figure, axes, points, front)

    return draw_png((8.2, 5.2), draw)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that no other beats: fewer bytes (x) or equal, and higher Dice (y) or equal.

    Args:
        points: x, y.

    Returns:
        The front by rising x, y strictly rising; empty without points.
    """
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front
