"""What the limits of two doubts are worth: how often each fires on validation cases, and how good those cases are.

Confidence and disagreement are continuous, so their limits have to be chosen: as high as they may be while a reader is
not called in vain too often, by whom doubts would soon be read no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch

from model.labels import STRUCTURES, UNKNOWN
from model.metrics import overlap
from model.plausibility import AGREEMENT, CONFIDENCE, confidence
from tasks.enrol import prepared_sites
from tasks.evaluate import Case, load_cases
from tasks.predict.ready import ReadyModel, offered, ready_model
from tasks.predict.shelf import Shelf
from tasks.workspace import Workspace

POOR_DICE = 0.70
"""Below it an outline has to be drawn anew."""
IN_VAIN = 0.10
"""The most of the good structures that may be flagged."""
LIMITS = tuple(round(0.50 + 0.01 * k, 2) for k in range(50))
CHECKS = {"confidence": CONFIDENCE, "agreement": AGREEMENT}
"""Column → the limit in force."""


def structures_of(name: str, ws: Workspace, say: Callable[[str], None] = lambda _: None) -> pd.DataFrame:
    """Segment every validation case of a run with the global and, where there is one, the site's personal model.

    Args:
        name: of the run, for the table.
        ws: a finished run on one machine. Its test cases stay closed.
        say: told what is being segmented.

    Returns:
        A row per site, case and annotated structure: run, site, patient, phase, structure, the global model's dice
        and confidence, and its agreement (Dice) with the personal one; NaN where undefined.
    """
    rows: list[dict[str, Any]] = []
    for site in prepared_sites(ws.cohort):
        say(f"{name}, {site}")
        shelf = Shelf(ws, site, live=False)
        models = [ready_model(shelf, model) for model in offered(shelf, None) if model != "base"]
        for case in load_cases(ws.data_home(site), "validation"):
            about = {"run": name, "site": site, "patient": case.row.patient, "phase": case.row.phase}
            rows += [about | row for row in _look(case, models)]
    return pd.DataFrame(rows)


def limit_table(rows: pd.DataFrame, column: str, limits: Iterable[float] = LIMITS) -> pd.DataFrame:
    """What each limit would do.

    Args:
        rows: as :func:`structures_of` returns them.
        column: confidence or agreement.
        limits: that are tried.

    Returns:
        A row per limit: limit, structures (with a value), flagged, dice_flagged, dice_unflagged (means), poor (below
        ``POOR_DICE``), poor_flagged and good_flagged.
    """
    known = rows.dropna(subset=[column, "dice"])
    poor = known["dice"] < POOR_DICE
    lines = []
    for limit in limits:
        flagged = known[column] < limit
        lines.append(
            {
                "limit": limit,
                "structures": len(known),
                "flagged": int(flagged.sum()),
                "dice_flagged": known["dice"][flagged].mean(),
                "dice_unflagged": known["dice"][~flagged].mean(),
                "poor": int(poor.sum()),
                "poor_flagged": int((poor & flagged).sum()),
                "good_flagged": int((~poor & flagged).sum()),
            }
        )
    return pd.DataFrame(lines)


def best_limit(table: pd.DataFrame) -> float:
    """The highest limit that flags at most a tenth (``IN_VAIN``) of the good structures.

    Args:
        table: as :func:`limit_table` returns it.

    Returns:
        The limit; NaN where even the lowest flags more.
    """
    good = table["structures"] - table["poor"]
    spared = table[table["good_flagged"] <= IN_VAIN * good]
    return float(spared["limit"].max())


def limit_markdown(table: pd.DataFrame, in_force: float) -> str:
    """Every fifth limit that fires, and the one in force, which is bold, as markdown."""
    poor = f"of those below {POOR_DICE:.2f}"
    heads = ["limit", "fires on", "Dice there", "Dice elsewhere", poor, "of the others"]
    lines = [heads, ["---"] * len(heads)]
    for row in table.to_dict("records"):
        limit, good = f"{row['limit']:.2f}", row["structures"] - row["poor"]
        if row["limit"] != in_force and (limit[-1] not in "05" or not row["flagged"]):
            continue
        lines.append(
            [
                f"**{limit}**" if row["limit"] == in_force else limit,
                f"{row['flagged']} of {row['structures']}",
                _number(row["dice_flagged"]),
                _number(row["dice_unflagged"]),
                f"{row['poor_flagged']} of {row['poor']}",
                f"{row['good_flagged']} of {good}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _look(case: Case, models: list[ReadyModel]) -> list[dict[str, Any]]:
    truth = np.asarray(case.orientation.to_native(case.truth))
    known, masks, sure = truth != UNKNOWN, [], []
    for model in models:
        with torch.inference_mode():
            probabilities = model.predict(case.slices)
            masks.append(case.crop.to_native(probabilities).argmax(1).to(torch.uint8).numpy())
        sure.append(confidence(probabilities.numpy()))
    rows = []
    for structure, label in STRUCTURES.items():
        if label not in case.row.annotated:
            continue
        both = overlap(masks[0] == label, masks[1] == label).dice if len(masks) > 1 else float("nan")
        dice = overlap((masks[0] == label) & known, truth == label).dice
        rows.append(
            {"structure": structure, "dice": dice, "confidence": sure[0][structure], "agreement": both}
        )
    return rows


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"
