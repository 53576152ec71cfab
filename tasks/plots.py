"""The report's figures as PNG bytes: readable in print, and by readers who do not tell red from green."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tasks.history import RoundHistory, full_bytes, sites_of, validation_dice

DPI = 160
INK, QUIET, RULE = "#1d2733", "#5b6673", "#d6dbe1"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#444444")
"""Okabe and Ito's palette, the two palest colours replaced by darker ones."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")

_DRAWING = threading.Lock()
"""matplotlib's font and text caches are shared by all figures of a process."""


def learning_curves(history: Sequence[RoundHistory], dpi: int = DPI) -> bytes:
    """Validation Dice of the global model by round, what local adaptation adds, and the training loss."""

    def draw(figure: Figure) -> None:
        left, middle, right = figure.subplots(1, 3, width_ratios=(4, 3, 4))
        sites = sites_of(history)
        _draw_validation(left, history, sites)
        _draw_adaptation(middle, history, sites)
        _draw_loss(right, history, sites)
        _legend(figure, left, len(sites) + 1)

    return draw_png((9.6, 3.5), draw, dpi)


def site_heatmap(matrices: Mapping[str, pd.DataFrame]) -> bytes:
    """Owner × site mean Dice, one panel per model on one common colour scale.

    Args:
        matrices: title → matrix as ``summary.site_matrix`` returns it; at least one with a defined cell.

    Returns:
        PNG, the panels side by side.
    """
    values = np.concatenate([m.to_numpy(dtype=np.float64).ravel() for m in matrices.values()])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(matrices), squeeze=False)[0]
        for panel, (title, matrix) in zip(panels, matrices.items(), strict=True):
            _draw_matrix(panel, matrix, title, low, high)

    largest = max(max(m.shape) for m in matrices.values())
    side = max(3.1, 0.62 * largest + 1.3)
    return draw_png((side * 1.2 * len(matrices), side), draw)


def weights_and_gains(history: Sequence[RoundHistory]) -> bytes:
    """Per round: the Dice others measured for each site's update, and its share of the merged step."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        sites = sites_of(history)
        _draw_gains(left, history, sites)
        _draw_shares(right, history, sites)
        _legend(figure, right, len(sites))

    return draw_png((9.6, 3.3), draw)


def bytes_sent(history: Sequence[RoundHistory]) -> bytes:
    """Uploaded bytes per site and round beside the full weights, on a logarithmic axis; sites side by side."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        sites = sites_of(history)
        for k, site in enumerate(sites):
            aside = 0.5 * (k + 0.5) / len(sites) - 0.25
            points = [(e.number + aside, e.updates[site].adapter_bytes) for e in history if site in e.updates]
            marker = MARKERS[k % len(MARKERS)]
            axes.plot(*zip(*points, strict=True), marker, color=_colour(k), markersize=5, label=plain(site))
        full = full_bytes(history)
        if full:
            axes.axhline(full, color=INK, linewidth=1.2, linestyle=(0, (6, 3)), label="full weights")
        axes.set_yscale("log")
        axes.margins(y=0.25)
        axes.yaxis.set_major_formatter(lambda value, _: _bytes(value))
        _style(axes, "Uploaded per site", "round", "logarithmic", [e.number for e in history])
        _legend(figure, axes, len(sites) + 1)

    return draw_png((9.6, 3.0), draw)


def draw_png(size_in: tuple[float, float], draw: Callable[[Figure], None], dpi: int = DPI) -> bytes:
    """Draw a figure; safe to call from several threads.

    Args:
        size_in: width and height, inches.
        draw: fills an empty figure.
        dpi: pixels per inch.

    Returns:
        PNG, the same bytes for the same drawing.
    """
    with _DRAWING:
        figure = Figure(figsize=size_in, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        return buffer.getvalue()


def _draw_validation(axes: Axes, history: Sequence[RoundHistory], sites: Sequence[str]) -> None:
    curves = validation_dice(history)
    for k, site in enumerate(sites):
        _line(axes, curves.get(site, {}), k, site)
    rounds = sorted({x for curve in curves.values() for x in curve})
    everywhere = [x for x in rounds if all(x in curve for curve in curves.values())]
    means = {x: float(np.mean([curve[x] for curve in curves.values()])) for x in everywhere}
    axes.plot(list(means), list(means.values()), color=INK, linewidth=2.4, label="mean of sites", zorder=4)
    _style(axes, "Global model, validation slices", "rounds completed", "Dice", rounds)
    _say_if_empty(axes, bool(curves))


def _draw_adaptation(axes: Axes, history: Sequence[RoundHistory], sites: Sequence[str]) -> None:
    rounds = [entry.number for entry in history]
    for k, (name, fill) in enumerate((("before", "white"), ("after", INK))):
        values = [_adaptation(entry, sites)[k] for entry in history]
        axes.plot(rounds, values, color=INK, linewidth=1.2, marker="o", markersize=5, mfc=fill, label=name)
    _style(axes, "Local adaptation, validation cases", "round", "Dice, mean of sites", rounds)
    told = [s for entry in history for e in entry.evaluations.values() for s in e.after.values()]
    some = any(summary.mean is not None for summary in told)
    _say_if_empty(axes, some, "withheld: too few\npatients at every site" if told else "nothing yet")
    if some:
        axes.legend(fontsize=7.5, frameon=False, loc="lower right", labelcolor=QUIET)


def _adaptation(entry: RoundHistory, sites: Sequence[str]) -> tuple[float, float]:
    found = [entry.evaluations[site] for site in sites if site in entry.evaluations]
    sides = [[s.mean for s in side.values()] for e in found for side in (e.before, e.after)]
    means = [_mean([v for v in side if v is not None]) for side in sides]
    return _mean(means[0::2]), _mean(means[1::2])


def _draw_loss(axes: Axes, history: Sequence[RoundHistory], sites: Sequence[str]) -> None:
    steps = 0
    for entry in history:
        length = max((len(update.curve) for update in entry.updates.values()), default=0)
        for k, site in enumerate(sites):
            if site in entry.updates:
                curve = _smooth(np.asarray(entry.updates[site].curve, dtype=np.float64))
                axes.plot(steps + np.arange(len(curve)) + 1, curve, color=_colour(k), linewidth=1.1)
        steps += length
        axes.axvline(steps + 0.5, color=RULE, linewidth=0.8, zorder=0)
    _style(axes, "Training loss (moving mean of 5)", "optimizer step; a rule ends a round", "loss", None)
    _say_if_empty(axes, steps > 0)


def _draw_gains(axes: Axes, history: Sequence[RoundHistory], sites: Sequence[str]) -> None:
    axes.axhline(0, color=QUIET, linewidth=0.8)
    merges = [(entry.number, entry.merge) for entry in history if entry.merge]
    for k, site in enumerate(sites):
        receipts = [(n, r) for n, merge in merges for r in merge.receipts if r.site == site]
        _line(axes, {n: r.gain for n, r in receipts if r.gain is not None}, k, site)
    _style(axes, "Gain of each update, median of the other sites", "round", "Dice", [n for n, _ in merges])
    _say_if_empty(axes, bool(merges))


def _draw_shares(axes: Axes, history: Sequence[RoundHistory], sites: Sequence[str]) -> None:
    merges = [(entry.number, entry.merge) for entry in history if entry.merge]
    numbers = [n for n, _ in merges]
    floor = np.zeros(len(merges))
    for k, site in enumerate(sites):
        shares = [{r.site: 100 * r.share for r in merge.receipts}.get(site, 0.0) for _, merge in merges]
        axes.bar(numbers, shares, 0.62, floor, color=_colour(k), edgecolor="white", linewidth=0.8, label=site)
        floor = floor + np.asarray(shares)
    _style(axes, "Share in the merged step", "round", "%", numbers)
    _say_if_empty(axes, bool(merges))


def _draw_matrix(axes: Axes, matrix: pd.DataFrame, title: str, low: float, high: float) -> None:
    values = matrix.to_numpy(dtype=np.float64)
    axes.imshow(values, cmap="cividis", vmin=low, vmax=max(high, low + 1e-6), aspect="auto")
    middle = (low + high) / 2
    for (row, column), value in np.ndenumerate(values):
        text, ink = ("n/a", INK) if np.isnan(value) else (f"{value:.3f}", "white" if value < middle else INK)
        home = str(matrix.index[row]) == str(matrix.columns[column])
        weight = "bold" if home else "normal"
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8.5, fontweight=weight)
    axes.set_xticks(
        range(values.shape[1]), [plain(c) for c in matrix.columns], fontsize=8, rotation=20, ha="right"
    )
    axes.set_yticks(range(values.shape[0]), [plain(c) for c in matrix.index], fontsize=8)
    axes.set_xlabel("test cases of", fontsize=8, color=QUIET)
    axes.set_ylabel("model of", fontsize=8, color=QUIET)
    axes.set_title(plain(title), loc="left", fontsize=9.5, color=INK)
    axes.tick_params(length=0, colors=QUIET)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _line(axes: Axes, points: Mapping[int, float], k: int, label: str) -> None:
    axes.plot(
        list(points),
        list(points.values()),
        color=_colour(k),
        marker=MARKERS[k % len(MARKERS)],
        markersize=4,
        linewidth=1.3,
        linestyle=("-", (0, (4, 2)), (0, (1, 1.5)))[k // len(COLOURS) % 3],
        label=plain(label),
    )


def _style(axes: Axes, title: str, x: str, y: str, rounds: Sequence[int] | None) -> None:
    axes.set_title(title, loc="left", fontsize=9, color=INK)
    axes.set_xlabel(x, fontsize=8, color=QUIET)
    axes.set_ylabel(y, fontsize=8, color=QUIET)
    axes.tick_params(labelsize=8, colors=QUIET, length=3)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    if rounds:
        edge = 0.4 if len(rounds) > 2 else 0.8
        axes.set_xlim(min(rounds) - edge, max(rounds) + edge)


def _legend(figure: Figure, axes: Axes, entries: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = min(entries, 6)
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=columns,
            fontsize=8,
            frameon=False,
            labelcolor=INK,
        )


def _say_if_empty(axes: Axes, some: bool, said: str = "nothing yet") -> None:
    if not some:
        axes.text(0.5, 0.5, said, transform=axes.transAxes, ha="center", color=QUIET, fontsize=9)
        axes.set_yticks([])


def _smooth(curve: NDArray[np.float64], width: int = 5) -> NDArray[np.float64]:
    """Moving mean over at most ``width`` past values; as long as the input."""
    sums = np.concatenate([[0.0], np.cumsum(curve)])
    ends = np.arange(1, len(curve) + 1)
    starts = np.maximum(0, ends - width)
    smooth: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return smooth


def _mean(values: Sequence[float]) -> float:
    defined = [v for v in values if not np.isnan(v)]
    return float(np.mean(defined)) if defined else float("nan")


def plain(text: object) -> str:
    """Text that matplotlib does not read as a formula."""
    return str(text).replace("$", r"\$")


def _colour(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def _bytes(value: float) -> str:
    return f"{value / 1e6:g} MB" if value >= 1e6 else f"{value / 1e3:g} kB"
