"""A study of a few rows, with Dice that means and differences can be worked out from by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tasks.study_report.estimates import Bootstrap
from tasks.study_report.roles import Roles
from tasks.study_report.tables import Tables, make_tables

FEW = Bootstrap(resamples=400)
ROLES = Roles(
    rivals=("median", "krum"),
    local=("local",),
    by_seed=("rated", "fedavg", "nobody"),
    attacks=("sign-flip",),
    rater_faults=("liar",),
    beside={"sign-flip": "clean", "liar": "clean"},
)
DICE = {  # (split seed, site) → Dice of its test patients; seed means (.7 + .9) / 2 = .8 and (.6 + .8) / 2 = .7
    (1, "a"): [0.6, 0.8],
    (1, "b"): [0.9],
    (2, "a"): [0.5, 0.7],
    (2, "b"): [0.8],
}


def case(
    method: str, scenario: str, split: int, site: str, patient: int, dice: float, **more: object
) -> dict[str, object]:
    row = {"method": method, "scenario": scenario, "split_seed": split, "train_seed": 1, "model": "global"}
    row |= {"owner": "", "site": site, "honest": True, "patient": f"p{patient}"}
    return row | {"dice": dice, "dice_rv": dice, "dice_myo": dice, "dice_lv": dice} | more


def case_rows(
    method: str, scenario: str = "clean", shift: float = 0.0, **more: object
) -> list[dict[str, object]]:
    return [
        case(method, scenario, split, site, k, value + shift, **more)
        for (split, site), values in DICE.items()
        for k, value in enumerate(values)
    ]


def personal_rows(method: str, own: float, others: float) -> list[dict[str, object]]:
    """Personal models of a and b, ``own`` above DICE at home and ``others`` above it elsewhere."""
    return [
        row
        for owner in "ab"
        for site in "ab"
        for row in case_rows(method, shift=own if owner == site else others, model="personal", owner=owner)
        if row["site"] == site
    ]


def cell(method: str, scenario: str = "clean", split: int = 1, **more: object) -> dict[str, object]:
    row = {"method": method, "scenario": scenario, "split_seed": split, "train_seed": 1}
    row |= {"upload_bytes": 1000.0, "download_bytes": 2000.0, "validation_dice": 0.7}
    row |= {
        "rounds": 3,
        "steps": 20,
        "weights_mean": np.nan,
        "weights_min": np.nan,
        "attacker_weight": np.nan,
    }
    return row | more


def frames(
    cases: list[dict[str, object]], cells: list[dict[str, object]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.DataFrame(cases), pd.DataFrame(cells)


def study() -> tuple[pd.DataFrame, pd.DataFrame]:
    """fedavg and plain are DICE; rated .002 below, adapted .01 above and elsewhere .01 below; alone 0 and .1 below."""
    cases = case_rows("fedavg") + case_rows("rated", shift=-0.002) + personal_rows("rated", 0.01, -0.01)
    cases += personal_rows("local", 0.0, -0.1) + case_rows("plain")
    for method, loss in (("rated", -0.012), ("plain", -0.2)):
        cases += [r | {"honest": r["site"] != "b"} for r in case_rows(method, "sign-flip", loss)]
    cases += case_rows("rated", "liar", -0.02)
    weights = ({"weights_mean": 0.95, "weights_min": 0.8}, {"weights_mean": 0.91, "weights_min": 0.6})
    cells = [cell(m, split=s, upload_bytes=200_000.0) for m in ("fedavg", "plain") for s in (1, 2)]
    cells += [cell("rated", split=s, **w) for s, w in zip((1, 2), weights, strict=True)]
    cells += [cell("local", split=s, upload_bytes=0.0) for s in (1, 2)]
    cells += [cell("rated", "sign-flip", s, attacker_weight=0.1 * s, weights_min=0.9) for s in (1, 2)]
    cells += [cell("plain", "sign-flip", s) for s in (1, 2)] + [cell("rated", "liar", s) for s in (1, 2)]
    return frames(cases, cells)


def tables(cases: pd.DataFrame, cells: pd.DataFrame, roles: Roles = ROLES) -> Tables:
    return make_tables(cases, cells, roles, full_bytes=200_000.0, bootstrap=FEW)


def claims(cases: pd.DataFrame, cells: pd.DataFrame, roles: Roles = ROLES) -> dict[str, dict[str, str]]:
    """The rows of the claims by claim."""
    table = tables(cases, cells, roles).claims.astype(str)
    return {str(row.pop("claim")): row for row in table.to_dict("records")}
