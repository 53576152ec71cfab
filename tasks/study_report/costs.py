"""What a cell cost and what rating made of its sites, from its rounds."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd


def cell_costs(rounds: pd.DataFrame, attackers: Collection[str], rates: bool) -> dict[str, float]:
    """A cell's numbers for ``rows.CELL_COLUMNS``.

    A site whose raters' side alone is at fault (it lies, its masks are biased, it has few slices) is no attacker:
    its patients count, and so does its weight.

    Args:
        rounds: a row per round and site, see :class:`tasks.study.cell.Outcome`.
        attackers: sites that falsify their data or their update.
        rates: whether the method weighs updates by ratings; without, no weight is told.

    Returns:
        ``upload_bytes`` (of :func:`mean_upload`) and ``download_bytes``; ``validation_dice`` of honest sites after
        the last round; ``weights_mean`` and ``weights_min`` of honest sites, ``attacker_weight``, over all rounds;
        NaN where there is no such site, or no weight.
    """
    harmful = rounds["site"].isin(list(attackers))
    weights = rounds["weight"].where(np.full(len(rounds), rates))
    last = rounds["round"] == rounds["round"].max()
    return {
        "upload_bytes": mean_upload(rounds),
        "download_bytes": float(rounds["download_bytes"].mean()),
        "validation_dice": float(rounds.loc[last & ~harmful, "validation_dice"].mean()),
        "weights_mean": float(weights[~harmful].mean()),
        "weights_min": float(weights[~harmful].min()),
        "attacker_weight": float(weights[harmful].mean()),
    }


def mean_upload(rounds: pd.DataFrame) -> float:
    """Bytes per upload: mean over the sites and rounds that sent one, 0 when nobody ever did."""
    sent = rounds.loc[rounds["upload_bytes"] > 0, "upload_bytes"]
    return float(sent.mean()) if len(sent) else 0.0
