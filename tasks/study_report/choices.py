"""The table that settings were chosen by: on validation patients alone, each beside the default."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from model.statistics import mean_sd
from tasks.study_report.costs import mean_upload
from tasks.study_report.methods import bytes_ratio
from tasks.study_report.rows import CELL, SEEDS, names_in, require

ROUND_COLUMNS = [*CELL, "round", "site", "validation_dice", "upload_bytes", "download_bytes"]
COLUMNS = ["default", "validation_dice", "validation_dice_sd", "difference", "difference_sd"]
COLUMNS += ["upload_bytes", "download_bytes", "ratio", "seeds", "paired_seeds"]


def choice_table(
    rounds: pd.DataFrame, defaults: Mapping[str, str], *, full_bytes: float = math.nan
) -> pd.DataFrame:
    """One row per choice that was run, after the default it was tried against.

    Args:
        rounds: columns ``ROUND_COLUMNS``, the rounds of choices and defaults under the seeds of the choices.
        defaults: choice → method that has the default setting, in the order of the table.
        full_bytes: size of the full weights.

    Returns:
        Index method. ``default``, its own name in a default's row; ``validation_dice`` after the last round, mean over
        sites, mean over seeds, with ``_sd`` over seeds; ``difference`` to the default on the same sites and
        validation slices, mean over sites and then over the ``paired_seeds`` that both were run under, with ``_sd``,
        NaN in a default's own row; mean ``upload_bytes``, ``download_bytes`` per site and round; ``ratio`` of full
        to uploaded bytes, NaN without uploads; ``seeds``. A Dice that is undefined at a site leaves the seed's mean
        undefined. No rows without cells.

    Raises:
        DataError: columns are missing, or rows are double.
    """
    require(rounds, ROUND_COLUMNS, [*CELL, "round", "site"], "rounds")
    there = set(names_in("method", rounds))
    order = [name for default in dict.fromkeys(defaults.values()) for name in _group(default, defaults)]
    found = {m: _choice_row(rounds, m, defaults.get(m, m), full_bytes) for m in order if m in there}
    return pd.DataFrame.from_dict(found, orient="index", columns=COLUMNS).rename_axis("method")


def _group(default: str, defaults: Mapping[str, str]) -> list[str]:
    return [default, *(choice for choice, against in defaults.items() if against == default)]


def _choice_row(rounds: pd.DataFrame, method: str, default: str, full_bytes: float) -> list[object]:
    own = rounds[rounds["method"] == method]
    dice = _seed_means(_last_dice(own))
    apart = _last_dice(own) - _last_dice(rounds[rounds["method"] == default])
    known = _seed_means(apart[_both(rounds, method, default, apart)])
    differences = [] if method == default else known.tolist()
    upload = mean_upload(own)
    costs = [upload, float(own["download_bytes"].mean()), bytes_ratio(full_bytes, upload)]
    return [default, *mean_sd(dice.tolist()), *mean_sd(differences), *costs, len(dice), len(differences)]


def _last_dice(rounds: pd.DataFrame) -> pd.Series[float]:
    """Index split seed, training seed, site: after the last round of each seed."""
    last = rounds[rounds["round"] == rounds.groupby(SEEDS)["round"].transform("max")]
    return last.set_index([*SEEDS, "site"])["validation_dice"]


def _seed_means(dice: pd.Series[float]) -> pd.Series[float]:
    return dice.groupby(level=SEEDS).mean(skipna=False)


def _both(rounds: pd.DataFrame, method: str, default: str, apart: pd.Series[float]) -> list[bool]:
    """Which rows stand under seeds that both were run under."""
    ran = [set(map(tuple, rounds.loc[rounds["method"] == m, SEEDS].to_numpy())) for m in (method, default)]
    return [(split, train) in ran[0] & ran[1] for split, train, _ in apart.index.tolist()]
