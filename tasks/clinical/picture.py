"""Bland-Altman plots: the difference of every patient over the mean of measurement and reference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.agreement import Agreement, Estimate
from tasks.clinical.agree import FEWEST, MASS, QUANTITIES, Quantity, agreement_of, pairs_of
from tasks.plots import COLOURS, INK, MARKERS, QUIET, RULE, draw_png, plain

SHOWN = (*(q for q in QUANTITIES if q.key in ("lv_ef_percent", "lv_edv_ml", "lv_esv_ml")), MASS)
SHOWN_RIGHT = tuple(q for q in QUANTITIES if q.key in ("rv_ef_percent", "rv_edv_ml", "rv_esv_ml"))
BIAS, LIMIT = "#0072B2", "#8a4b00"


def bland_altman(patients: pd.DataFrame, model: str) -> bytes:
    """One panel per quantity: LV above, RV below; bias and limits with their intervals as bands.

    Args:
        patients: as :func:`tasks.clinical.agree.patient_table` returns it.
        model: whose predictions.

    Returns:
        PNG. With fewer than ``FEWEST`` patients a panel shows points and their number only.
    """
    sites = sorted(set(patients["site"]))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(2, len(SHOWN))
        for axes, quantity in zip(grid.flat, (*SHOWN, *SHOWN_RIGHT), strict=False):
            _draw_panel(axes, patients, model, quantity, sites)
        _draw_key(grid[1, -1], sites)

    return draw_png((9.6, 5.6), draw)


def _draw_panel(
    axes: Axes, patients: pd.DataFrame, model: str, quantity: Quantity, sites: Sequence[str]
) -> None:
    pairs = pairs_of(patients, model, quantity).dropna()
    found, _ = agreement_of(patients, model, quantity)
    axes.axhline(0, color=RULE, linewidth=0.8, zorder=0)
    for line, colour, dashes in ((found.bias, BIAS, "-"), *_limits(found)):
        _draw_line(axes, line, colour, dashes)
    for k, site in enumerate(sites):
        own = pairs[pairs["site"] == site]
        x, y = (own["predicted"] + own["reference"]) / 2, own["predicted"] - own["reference"]
        axes.plot(x, y, _marker(k), color=_colour(k), markersize=4, markeredgewidth=0, alpha=0.85)
    title = f"{quantity.words}, {quantity.unit} (n = {found.n}{'' if found.n >= FEWEST else ': too few'})"
    axes.set_title(title, loc="left", fontsize=8.5, color=INK)
    axes.set_xlabel("mean of both", fontsize=7.5, color=QUIET)
    axes.set_ylabel("model − reference", fontsize=7.5, color=QUIET)
    axes.tick_params(labelsize=7.5, colors=QUIET, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.margins(x=0.12, y=0.12)


def _limits(found: Agreement) -> tuple[tuple[Estimate, str, str], ...]:
    return (found.lower, LIMIT, "--"), (found.upper, LIMIT, "--")


def _draw_line(axes: Axes, line: Estimate, colour: str, dashes: str) -> None:
    """A value with its interval as a band; a bias without interval is not drawn, for it would look like one."""
    if not math.isfinite(line.low):
        return
    axes.axhspan(line.low, line.high, color=colour, alpha=0.12, linewidth=0, zorder=0)
    axes.axhline(line.value, color=colour, linewidth=1.2, linestyle=dashes, zorder=1)


def _draw_key(axes: Axes, sites: Sequence[str]) -> None:
    axes.set_axis_off()
    axes.plot([], [], color=BIAS, linewidth=1.2, label="bias")
    axes.plot([], [], color=LIMIT, linewidth=1.2, linestyle="--", label="95 % limits")
    axes.fill_between([], [], color=QUIET, alpha=0.2, linewidth=0, label="their 95 % intervals")
    for k, site in enumerate(sites[:8]):
        axes.plot([], [], _marker(k), color=_colour(k), markersize=4, markeredgewidth=0, label=plain(site))
    axes.legend(loc="center left", fontsize=7.5, frameon=False, labelcolor=INK)


def _colour(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def _marker(k: int) -> str:
    return MARKERS[k % len(MARKERS)]
