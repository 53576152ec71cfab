"""EF, volumes and mass against the reference: a row of the agreement table per model and quantity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from model.agreement import Agreement, Estimate, agreement
from tasks.evaluate import clinical_table
from tasks.summary import ordered_models, view_of

FEWEST = 6
"""Patients below which no interval is given, nothing is ordered and nothing is decided.

With five pairs that all point one way, the sign test still has p = 2 · ½⁵ = 0.06: six is the smallest number that
can decide anything at 5 % without assuming a distribution.
"""


@dataclass(frozen=True)
class Quantity:
    """One number that is read off a segmentation.

    Attributes:
        key: its name in tables, unit included.
        words: its name for people.
        unit: as it is printed.
        predicted: column of :func:`tasks.evaluate.clinical_table`.
        reference: likewise.
    """

    key: str
    words: str
    unit: str
    predicted: str
    reference: str


def _volume(side: str, name: str) -> Quantity:
    key = f"{side}_{name}"
    return Quantity(f"{key}_ml", f"{side.upper()} {name.upper()}", "ml", f"{key}_pred_ml", f"{key}_true_ml")


def _fraction(side: str) -> Quantity:
    return Quantity(
        f"{side}_ef_percent",
        f"{side.upper()} EF",
        "%",
        f"{side}_ef_pred_percent",
        f"{side}_ef_true_percent",
    )


MASS = Quantity("lv_mass_g", "LV mass", "g", "mass_pred_g", "mass_true_g")
QUANTITIES = (
    *(_fraction("lv"), _volume("lv", "edv"), _volume("lv", "esv"), _volume("lv", "sv"), MASS),
    *(_fraction("rv"), _volume("rv", "edv"), _volume("rv", "esv"), _volume("rv", "sv")),
)


def patient_table(cases: pd.DataFrame) -> pd.DataFrame:
    """Every patient's volumes, EF and mass, predicted and true, under every model on own patients.

    A model that a site owns is judged on that site's patients, as the site would use it; so every patient stands
    once under each model, and pairs are independent.

    Args:
        cases: the case table, see :func:`tasks.summary.read_cases`.

    Returns:
        Columns model, site, then those of :func:`tasks.evaluate.clinical_table`.
    """
    own = view_of(cases, "in")
    tables = [
        clinical_table(rows).assign(model=str(model), site=str(site))
        for (model, site), rows in own.groupby(["model", "site"], sort=True)
    ]
    table = pd.concat(tables, ignore_index=True)
    first = ["model", "site"]
    return table[first + [column for column in table.columns if column not in first]]


def pairs_of(patients: pd.DataFrame, model: str, quantity: Quantity) -> pd.DataFrame:
    """Predicted and reference of one quantity under one model; columns site, predicted, reference, NaN kept."""
    rows = patients[patients["model"] == model]
    return pd.DataFrame(
        {"site": rows["site"], "predicted": rows[quantity.predicted], "reference": rows[quantity.reference]}
    )


def agreement_of(patients: pd.DataFrame, model: str, quantity: Quantity) -> tuple[Agreement, int]:
    """Agreement over the patients who have both numbers, and how many lack one.

    Args:
        patients: as :func:`patient_table` returns it.
        model: of which predictions.
        quantity: what is compared.

    Returns:
        The agreement, its intervals, limits and ICC NaN below ``FEWEST`` patients; and the count left out.
    """
    pairs = pairs_of(patients, model, quantity)
    defined = pairs.dropna()
    found = agreement(defined["predicted"].to_numpy(float), defined["reference"].to_numpy(float))
    return (found if found.n >= FEWEST else _bare(found)), len(pairs) - len(defined)


def agreement_table(patients: pd.DataFrame) -> pd.DataFrame:
    """Bias, limits of agreement, absolute error and ICC of every quantity under every model.

    Args:
        patients: as :func:`patient_table` returns it.

    Returns:
        Columns model, quantity, n, undefined, bias, bias_low, bias_high, sd, lower, lower_low, lower_high, upper,
        upper_low, upper_high, mae, icc, icc_low, icc_high, in the quantity's unit.
    """
    return pd.DataFrame(_lines(patients))


def agreement_metrics(patients: pd.DataFrame) -> dict[str, float | int | None]:
    """Flat numbers for ``dvc metrics show``: the global model's agreement; what is undefined is None."""
    numbers: dict[str, float | int | None] = {}
    if "global" not in set(patients["model"]):
        return numbers
    for quantity in QUANTITIES:
        found, _ = agreement_of(patients, "global", quantity)
        shown = {"n": found.n, "bias": found.bias.value, "mae": found.mae, "icc": found.icc.value}
        shown |= {"limit_low": found.lower.value, "limit_high": found.upper.value}
        numbers |= {
            f"global_{quantity.key}_{name}": value if math.isfinite(value) else None
            for name, value in shown.items()
        }
    return numbers


def _lines(patients: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for model in ordered_models(patients):
        for quantity in QUANTITIES:
            found, undefined = agreement_of(patients, model, quantity)
            yield {
                "model": model,
                "quantity": quantity.key,
                "n": found.n,
                "undefined": undefined,
                **_columns("bias", found.bias),
                "sd": found.sd,
                **_columns("lower", found.lower),
                **_columns("upper", found.upper),
                "mae": found.mae,
                **_columns("icc", found.icc),
            }


def _columns(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _bare(found: Agreement) -> Agreement:
    """Of too few patients only bias and absolute error are told, without an interval."""
    nothing = Estimate(np.nan, np.nan, np.nan)
    bias = Estimate(found.bias.value, np.nan, np.nan)
    return Agreement(found.n, bias, np.nan, nothing, nothing, found.mae, nothing)
