"""The picture of weights: every honest site in every round, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.errors import DataError
from tasks.plots import COLOURS, INK, MARKERS, QUIET, draw_png, plain
from tasks.study_report.claims import LEAST_WEIGHT, MEAN_WEIGHT
from tasks.study_report.picture_style import legend, say_nothing_yet, style_axes
from tasks.study_report.rows import SEEDS


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
            say_nothing_yet(axes)
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
        style_axes(axes, f"Weight of honest sites, {plain(scenario)} federation", words, "y")
        axes.set_ylabel("weight", fontsize=8, color=QUIET)
        legend(figure, axes.get_legend_handles_labels()[0])

    return draw_png((max(6.4, 1.6 * len(bands) + 1.2), 3.8), draw)


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
