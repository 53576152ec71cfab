"""The study's pictures as PNG bytes: methods, bytes, scenarios, and the weights of honest sites."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from matplotlib.transforms import Bbox, BboxBase
from numpy.typing import NDArray

from model.errors import DataError
from tasks.findings import size
from tasks.plots import COLOURS, INK, MARKERS, QUIET, RULE, draw_png, plain
from tasks.study_tables import LEAST_WEIGHT, MEAN_WEIGHT, POINT, SEEDS

LINES = ("zero-shot", "pooled")
"""Methods drawn as lines: what there is before training, and what sharing all images would give."""
_OTHER = "other"
_LABEL_PT = 7.5
_ASIDE = (-0.15, 0.15)
_FILLED, _HOLLOW = "o", "s"


def method_picture(
    methods: pd.DataFrame, families: Mapping[str, str] | None = None, lines: Sequence[str] = LINES
) -> bytes:
    """Dice of every method with its interval, the best at the top, coloured by family.

    Args:
        methods: of ``study_tables.method_table``.
        families: method → family, for the colours.
        lines: methods drawn as vertical lines over the whole picture.

    Returns:
        PNG; hollow marks are methods without a global model, judged on own patients. "nothing yet" without rows.
    """
    known = methods[methods["dice"].notna()] if len(methods) else methods
    rows = known[~known.index.isin(lines)].sort_values("dice") if len(known) else known
    colours = _palette(families or {})
    family = {str(m): (families or {}).get(str(m), _OTHER) for m in rows.index}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if not len(known):
            _nothing(axes)
            return
        for y, (method, row) in enumerate(rows.iterrows()):
            colour = colours[family[str(method)]]
            axes.plot([row["dice_low"], row["dice_high"]], [y, y], color=colour, linewidth=2)
            face = "white" if row["judged"] == "own" else colour
            axes.plot(row["dice"], y, "o", color=colour, mfc=face, markersize=6, zorder=3)
        axes.set_yticks(range(len(rows)), [plain(m) for m in rows.index])
        _style(axes, "Test Dice, mean of sites and seeds, 95 % interval over patients", "Dice")
        _draw_references(axes, {str(m): float(v) for m, v in known["dice"].items() if m in lines}, len(rows))
        _family_legend(figure, colours, family, bool((rows["judged"] == "own").any()))

    return draw_png((7.6, 1.7 + 0.27 * max(len(rows), 3)), draw)


def bytes_picture(methods: pd.DataFrame, families: Mapping[str, str] | None = None) -> bytes:
    """Dice against bytes uploaded per site and round, with the front that no method beats on both.

    Args:
        methods: of ``study_tables.method_table``; those that upload nothing are not shown.
        families: method → family, for the colours.

    Returns:
        PNG; "nothing yet" when no method uploads.
    """
    rows = methods[(methods["upload_bytes"] > 0) & methods["dice"].notna()] if len(methods) else methods
    points = [(str(m), float(r["upload_bytes"]), float(r["dice"])) for m, r in rows.iterrows()]
    colours = _palette(families or {})
    family = {m: (families or {}).get(m, _OTHER) for m, *_ in points}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if not points:
            _nothing(axes)
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
        _style(axes, title, "uploaded per site and round, logarithmic", "both")
        axes.set_ylabel("Dice", fontsize=8, color=QUIET)
        _family_legend(figure, colours, family, bool((rows["judged"] == "own").any()))
        _place_labels(figure, axes, points, front)

    return draw_png((8.2, 5.2), draw)


def scenario_picture(scenarios: pd.DataFrame, rated: str = "rated", average: str = "average") -> bytes:
    """What honest sites lose per scenario, in points of Dice: rated against plain averaging.

    Args:
        scenarios: of ``study_tables.scenario_table``; rows without a difference are not shown.
        rated: the method that is held to one point.
        average: the one beside it.

    Returns:
        PNG, all on the left, around one point on the right; "nothing yet" without differences.
    """
    shown = scenarios[scenarios["difference"].notna()] if len(scenarios) else scenarios
    names = [str(n) for n in dict.fromkeys(shown.index.get_level_values("scenario"))] if len(shown) else []

    def draw(figure: Figure) -> None:
        if not names:
            _nothing(figure.subplots())
            return
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for axes in (left, right):
            axes.axvline(0, color=QUIET, linewidth=0.8)
            axes.axvline(-100 * POINT, color=INK, linewidth=1, linestyle=(0, (4, 2)), label="one point")
            for k, (method, marker) in enumerate(((rated, _FILLED), (average, _HOLLOW))):
                _draw_losses(axes, shown, names, method, marker, k)
            axes.set_ylim(len(names) - 0.4, -0.6)
        left.set_yticks(range(len(names)), [plain(n) for n in names])
        _style(left, "Honest sites' Dice against the clean federation", "points of Dice")
        _style(right, "The same, near zero", "points of Dice")
        right.set_xlim(*_near_zero(shown, rated))
        _point_to_the_far(right, shown, names, (rated, average))
        _legend(figure, left.get_legend_handles_labels()[0])

    return draw_png((9.2, 1.6 + 0.34 * max(len(names), 4)), draw)


def weights_picture(weights: pd.DataFrame, rated: str = "rated", scenario: str = "clean") -> bytes:
    """Weight of every honest site in every round, seed by seed.

    Args:
        weights: columns method, scenario, split_seed, train_seed, round, site, honest (bool), weight.
        rated: the method.
        scenario: which one.

    Returns:
        PNG, a band per pair of seeds, rounds from left to right, a bar at the seed's mean; "nothing yet" without
        weights.

    Raises:
        DataError: columns are missing from a table with rows.
    """
    needed = ["method", "scenario", *SEEDS, "round", "site", "honest", "weight"]
    missing = [name for name in needed if name not in weights]
    weights = weights.reindex(columns=needed) if weights.empty else weights
    if missing and len(weights):
        raise DataError(
            f"no column {', '.join(missing)}", "weights", "make the table anew from the study's runs"
        )
    of_cell = (weights["method"] == rated) & (weights["scenario"] == scenario)
    rows = weights[of_cell & weights["honest"].astype(bool) & weights["weight"].notna()]
    bands = [(str(s), str(t), band) for (s, t), band in rows.groupby(SEEDS, sort=True)]
    sites = sorted({str(site) for site in rows["site"]})

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if not bands:
            _nothing(axes)
            return
        axes.axhline(
            MEAN_WEIGHT, color=QUIET, linewidth=0.9, linestyle=(0, (4, 2)), label=f"{MEAN_WEIGHT}, mean"
        )
        axes.axhline(
            LEAST_WEIGHT, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)), label=f"{LEAST_WEIGHT}, each"
        )
        for k, (_, _, band) in enumerate(bands):
            _draw_band(axes, band, k, sites)
        axes.set_xticks(range(len(bands)), [f"{s} / {t}" for s, t, _ in bands])
        axes.set_xlim(-0.6, len(bands) - 0.4)
        axes.set_ylim(min(0.4, float(rows["weight"].min()) - 0.05), 1.09)
        words = "split / training seed; rounds from left to right, bar and number: mean"
        _style(axes, f"Weight of honest sites, {plain(scenario)} federation", words, "y")
        axes.set_ylabel("weight", fontsize=8, color=QUIET)
        _legend(figure, axes.get_legend_handles_labels()[0])

    return draw_png((max(6.4, 1.6 * len(bands) + 1.2), 3.8), draw)


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
        if method in methods and not low <= value <= high:
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


def _draw_band(axes: Axes, band: pd.DataFrame, k: int, sites: Sequence[str]) -> None:
    rounds = sorted(set(band["round"]))
    step = 0.76 / max(len(rounds), 1)
    for j, site in enumerate(sites):
        rows = band[band["site"].astype(str) == site]
        places = [k - 0.38 + step * (rounds.index(r) + 0.5) for r in rows["round"]]
        axes.plot(
            places,
            rows["weight"],
            MARKERS[j % len(MARKERS)],
            color=COLOURS[j % len(COLOURS)],
            markersize=3.6,
            alpha=0.85,
            label=plain(site) if k == 0 else None,
        )
    mean = float(band["weight"].mean())
    axes.plot([k - 0.4, k + 0.4], [mean, mean], color=INK, linewidth=1.6, zorder=4)
    axes.text(k, 1.045, f"{mean:.3f}", ha="center", va="center", fontsize=8, color=INK)


def _place_labels(
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
        offset, box = _free_place(dot, width, height, pixel, taken, axes.bbox)
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


def _free_place(
    dot: NDArray[np.float64],
    width: float,
    height: float,
    pixel: float,
    taken: Sequence[Bbox],
    frame: BboxBase,
) -> tuple[tuple[float, float], Bbox]:
    """The nearest offset, in points, whose box hits least."""
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


def _palette(families: Mapping[str, str]) -> dict[str, str]:
    """Family → colour, the same in every picture of one study."""
    names = sorted(set(families.values()) - {_OTHER})
    return {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)} | {_OTHER: QUIET}


def _family_legend(
    figure: Figure, colours: Mapping[str, str], family: Mapping[str, str], some_own: bool
) -> None:
    names = sorted(set(family.values()))
    marks = [
        Line2D([], [], color=colours[n], marker="o", linestyle="", markersize=6, label=plain(n))
        for n in names
    ]
    if some_own:
        marks.append(
            Line2D(
                [], [], color=QUIET, marker="o", mfc="white", linestyle="", label="own models on own patients"
            )
        )
    if len(marks) > 1 or names not in ([], [_OTHER]):
        _legend(figure, marks)


def _legend(figure: Figure, marks: Sequence[Artist]) -> None:
    lengths = [0.5 + 0.075 * len(str(mark.get_label())) for mark in marks]
    columns = (
        len(marks) if sum(lengths) < figure.get_figwidth() else int(figure.get_figwidth() / max(lengths))
    )
    figure.legend(
        handles=list(marks),
        loc="outside lower center",
        ncols=max(1, columns),
        fontsize=8,
        frameon=False,
        labelcolor=INK,
    )


def _style(axes: Axes, title: str, x: str, grid: Literal["x", "y", "both"] = "x") -> None:
    axes.set_title(title, loc="left", fontsize=9, color=INK)
    axes.set_xlabel(x, fontsize=8, color=QUIET)
    axes.tick_params(labelsize=8, colors=QUIET, length=3)
    axes.grid(axis=grid, color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "nothing yet", transform=axes.transAxes, ha="center", color=QUIET, fontsize=9)
    axes.set_axis_off()
