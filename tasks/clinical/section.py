"""The report's clinical part: agreement of volumes, Bland-Altman plots, and who is served how well."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import pandas as pd

from model.agreement import Agreement
from model.labels import STRUCTURES
from tasks.clinical.agree import FEWEST, QUANTITIES, Quantity, agreement_of, patient_table
from tasks.clinical.picture import bland_altman
from tasks.clinical.strata import KINDS, PHASES, Cell, cell_of, column_of, members_of
from tasks.summary import ordered_models, view_of

TITLES = {
    "all": "All patients",
    "phase": "Phase",
    "level": "Slice level",
    "group": "Pathology",
    "vendor": "Vendor",
    "site": "Site",
}
DRAWN = ("global", "personal")
"""Models with a Bland-Altman plot: what a new hospital gets, and what a member uses."""


@dataclass(frozen=True)
class AgreementRow:
    """One model's agreement in one quantity."""

    model: str
    quantity: Quantity
    found: Agreement
    undefined: int


@dataclass(frozen=True)
class StratumRow:
    """One stratum of the global model: Dice and HD95 by structure."""

    kind: str
    stratum: str
    patients: int
    undefined: int
    dice: dict[str, Cell]
    hd95_mm: dict[str, Cell]


def clinical_section(cases: pd.DataFrame | None, seed: int, words: dict[str, str]) -> dict[str, Any]:
    """What the template needs.

    Args:
        cases: the case table; None before the test evaluation.
        seed: of the intervals.
        words: model → its name for people.

    Returns:
        ``agreement``, ``strata``, ``bland_altman`` (model in words → data URI) and ``fewest``.
    """
    empty: dict[str, Any] = {"agreement": [], "strata": [], "bland_altman": {}, "fewest": FEWEST}
    if cases is None or not (cases["phase"] == "ED").any():
        return empty
    patients = patient_table(cases)
    models = ordered_models(patients)
    pictures = {words.get(m, m): _data_uri(bland_altman(patients, m)) for m in DRAWN if m in models}
    return empty | {
        "agreement": [
            AgreementRow(words.get(model, model), quantity, *agreement_of(patients, model, quantity))
            for quantity in QUANTITIES
            if "_sv_" not in quantity.key  # the page is long; it stands in agreement.csv
            for model in models
        ],
        "strata": _strata(view_of(cases[cases["model"] == "global"], "in"), seed),
        "bland_altman": pictures,
    }


def _strata(rows: pd.DataFrame, seed: int) -> list[StratumRow]:
    if rows.empty:
        return []
    found = []
    for kind in KINDS:
        members = members_of(rows, kind).items()
        found += [_row(TITLES[kind], name, part, kind, seed) for name, part in members]
        if kind == "all":
            found += [_row("Phase", p, rows[rows["phase"] == p], "phase", seed) for p in PHASES]
    return found


def _row(title: str, stratum: str, rows: pd.DataFrame, kind: str, seed: int) -> StratumRow:
    dice, hd95 = (
        {s: cell_of(rows[rows["structure"] == s], column_of(metric, kind, stratum), seed) for s in STRUCTURES}
        for metric in ("dice", "hd95_mm")
    )
    patients = len(rows.drop_duplicates(["site", "patient"]))
    return StratumRow(title, stratum, patients, sum(cell.undefined for cell in dice.values()), dice, hd95)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
