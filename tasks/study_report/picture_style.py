"""How the study's pictures look: families' colours, legends, axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tasks.plots import COLOURS, INK, QUIET, RULE, plain

OTHER = "other"
"""Family of a method that has none."""


def family_colours(families: Mapping[str, str]) -> dict[str, str]:
    """Family → colour, the same in every picture of one study."""
    names = sorted(set(families.values()) - {OTHER})
    return {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)} | {OTHER: QUIET}


def family_legend(
    figure: Figure, colours: Mapping[str, str], family: Mapping[str, str], some_own: bool
) -> None:
    """Name the families shown, and hollow marks where ``some_own``; nothing where all are of no family."""
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
    if len(marks) > 1 or names not in ([], [OTHER]):
        legend(figure, marks)


def legend(figure: Figure, marks: Sequence[Artist]) -> None:
    """Below the picture, in as many columns as fit."""
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


def style_axes(axes: Axes, title: str, x: str, grid: Literal["x", "y", "both"] = "x") -> None:
    """Title, label of x, grid and quiet spines."""
    axes.set_title(title, loc="left", fontsize=9, color=INK)
    axes.set_xlabel(x, fontsize=8, color=QUIET)
    axes.tick_params(labelsize=8, colors=QUIET, length=3)
    axes.grid(axis=grid, color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)


def footnote(left_out: Sequence[str]) -> str:
    """Which methods a picture leaves out, in lines that go below the label of x; nothing when none."""
    names = ", ".join(map(plain, left_out))
    return "\n" + fill(f"not drawn, seeds missing: {names}", 96, break_on_hyphens=False) if left_out else ""


def say_nothing_yet(axes: Axes, more: str = "") -> None:
    """Empty axes that say so, and more."""
    text = f"nothing yet{more}"
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=QUIET, fontsize=9)
    axes.set_axis_off()
