"""Which rows of the test speak for a method: the frames' columns, their checks, and who is looked at."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from model.errors import DataError

SEEDS = ["split_seed", "train_seed"]
CELL = ["method", "scenario", *SEEDS]
STRUCTURES = ["dice_rv", "dice_myo", "dice_lv"]
CASE_KEY = [*CELL, "model", "owner", "site", "patient"]
CASE_COLUMNS = [*CASE_KEY, "honest", "dice", *STRUCTURES]
COSTS = ["upload_bytes", "download_bytes", "validation_dice"]
CELL_COLUMNS = [*CELL, *COSTS, "rounds", "steps", "weights_mean", "weights_min", "attacker_weight"]

View = Literal["main", "global", "own", "others"]


def prepare(cases: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Check both frames, keep the honest sites' patients, and name what the bootstrap draws.

    Args:
        cases: as for ``method_table``.
        cells: as for ``method_table``.

    Returns:
        The honest sites' cases with ``unit``, who is drawn, and ``place``, within which: with ``patient_key`` the key
        and the site; without, a patient of one split, and the site under that split. The latter takes the same
        patient under two splits for two, so its intervals are too narrow where splits overlap.

    Raises:
        DataError: as for ``method_table``.
    """
    require(cases, CASE_COLUMNS, CASE_KEY, "cases")
    require(cells, CELL_COLUMNS, CELL, "cells")
    if not cases.empty and not pd.api.types.is_bool_dtype(cases["honest"]):
        raise DataError("column honest is not boolean", "cases", "read it as true or false")
    rows = cases.assign(owner=cases["owner"].fillna(""))
    if "patient_key" in rows:
        if (rows["patient_key"].isna() | (rows["patient_key"].astype(str) == "")).any():
            raise DataError(
                "some patients have no key", "cases, column patient_key", "give all a key, or none"
            )
        require(rows, [], [*CELL, "model", "owner", "patient_key"], "cases, column patient_key")
        rows["unit"], rows["place"] = rows["patient_key"].astype(str), rows["site"].astype(str)
    else:
        rows["place"] = [str(w) for w in zip(rows["split_seed"], rows["site"], strict=True)]
        rows["unit"] = [str(w) for w in zip(rows["place"], rows["patient"], strict=True)]
    return rows[rows["honest"].astype(bool)]


def patients_of(
    rows: pd.DataFrame, method: str, scenario: str, view: View = "main", value: str = "dice"
) -> pd.DataFrame:
    """What each honest site's patient gets from a method.

    Args:
        rows: of ``prepare``.
        method: its name.
        scenario: its name.
        view: the ``global`` model; personal models on their ``own`` site's patients; on ``others``', mean over
            the owners; ``main`` is global, or own where the method has no global model.
        value: the column.

    Returns:
        Index split seed, training seed, unit; columns ``value``, ``site``, ``place``. Empty without cases.
    """
    found = of_cell(rows, method, scenario)
    grouped = found[_in_view(found, view)].groupby([*SEEDS, "unit"])
    parts = {
        "value": grouped[value].mean(),
        "site": grouped["site"].first(),
        "place": grouped["place"].first(),
    }
    return pd.DataFrame(parts)


def judged(rows: pd.DataFrame, method: str, scenario: str) -> str:
    """``global`` or ``own``: whose models speak for the method; empty without cases."""
    models = of_cell(rows, method, scenario)["model"]
    return "" if models.empty else "global" if (models == "global").any() else "own"


def of_cell(frame: pd.DataFrame, method: str, scenario: str) -> pd.DataFrame:
    """Rows of a method in a scenario, of all seeds."""
    return frame[(frame["method"] == method) & (frame["scenario"] == scenario)]


def is_there(rows: pd.DataFrame, cells: pd.DataFrame, method: str, scenario: str) -> bool:
    """Whether either frame knows the method in the scenario."""
    return any(not of_cell(frame, method, scenario).empty for frame in (rows, cells))


def names_in(column: str, *frames: pd.DataFrame) -> list[str]:
    """Values of a column in order of appearance, each once."""
    return list(dict.fromkeys(str(name) for frame in frames for name in frame[column]))


def require(frame: pd.DataFrame, columns: list[str], key: list[str], name: str) -> None:
    """Refuse a frame that lacks columns or names one thing twice.

    Args:
        frame: to check.
        columns: it must have.
        key: columns that no two rows share.
        name: of the frame, for the error.

    Raises:
        DataError: a column is missing, or rows are double.
    """
    missing = [column for column in columns if column not in frame]
    if missing:
        raise DataError(f"no column {', '.join(missing)}", name, "make the table anew from the study's runs")
    double = frame.duplicated(key)
    if double.any():
        first = ", ".join(str(v) for v in frame.loc[double, key].iloc[0])
        raise DataError(
            f"{int(double.sum())} rows are double, the first is {first}", name, "keep one of each"
        )


def _in_view(rows: pd.DataFrame, view: View) -> pd.Series[bool]:
    shared, own = rows["model"] == "global", rows["owner"] == rows["site"]
    if view == "main":
        view = "global" if shared.any() else "own"
    return shared if view == "global" else ~shared & (own if view == "own" else ~own)
