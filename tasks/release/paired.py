"""A site's patients under the new and the released model, as cells of sums that may leave it: no cell of a few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from model.gate import Goal, Pairs, pairs_of
from model.labels import STRUCTURES
from tasks.clinical.agree import QUANTITIES, patient_table
from tasks.clinical.strata import members_of
from tasks.records import MOST_EF, PairedCell
from tasks.small_cells import kept_cells

CANDIDATE, RELEASED = "candidate", "released"
KINDS = ("structure", "group", "vendor")
EVERYBODY = "all patients"
EF_BIAS, EF_ERROR = "ef_bias_percent", "ef_error_percent"
GOALS: Mapping[str, Goal] = {"dice": "higher", "hd95_mm": "lower", EF_BIAS: "small", EF_ERROR: "lower"}
VENTRICLES = ("LV", "RV")
PLACES = (
    *((structure, metric) for structure in STRUCTURES for metric in ("dice", "hd95_mm")),
    *((ventricle, metric) for ventricle in VENTRICLES for metric in (EF_BIAS, EF_ERROR)),
)
"""Structure and metric of every comparison within a stratum."""
EXACT = 12
"""Decimals of what does not leave the machine."""


def paired_cells(cases: pd.DataFrame, fewest: int = 1, digits: int = EXACT) -> tuple[PairedCell, ...]:
    """Sum up one site's patients, stratum by stratum.

    Args:
        cases: a row per model (``candidate`` and ``released``), patient, phase and structure, as
            :func:`tasks.evaluate.evaluate_cases` returns it with model, owner and site.
        fewest: patients that a cell must have; what would follow from the total goes with it
            (:func:`tasks.small_cells.kept_cells`), and so does a cell that lacks so few patients of its stratum, who
            could be told from another round's.
        digits: decimals.

    Returns:
        A cell per stratum, structure and metric of which there are enough patients, in a fixed order.
    """
    values = _values(cases)
    cells: list[PairedCell] = []
    for kind in KINDS:
        for place in PLACES:
            cells += _cells(cases, values[place], (kind, *place), fewest, digits)
    return tuple(cells)


def strata_of(cases: pd.DataFrame) -> dict[str, set[str]]:
    """Kind → names of the strata that a site's patients belong to."""
    return {kind: set(_members(cases, kind)) for kind in KINDS}


def as_pairs(cell: PairedCell) -> Pairs:
    """The sums of a cell."""
    spread = cell.released_sd, cell.candidate_sd, cell.difference_sd
    return Pairs(cell.patients, cell.released, cell.candidate, *spread)


def _cells(
    cases: pd.DataFrame, values: pd.DataFrame, place: tuple[str, str, str], fewest: int, digits: int
) -> Iterator[PairedCell]:
    kind, structure, metric = place
    own = {
        stratum: values[values.index.isin(patients)] for stratum, patients in _members(cases, kind).items()
    }
    defined = {stratum: rows.dropna() for stratum, rows in own.items()}
    for stratum in kept_cells({stratum: len(rows) for stratum, rows in defined.items()}, fewest):
        rows, lacking = defined[stratum], len(own[stratum]) - len(defined[stratum])
        if rows.empty or 0 < lacking < fewest:
            continue
        pairs = pairs_of(rows[CANDIDATE].to_numpy(float), rows[RELEASED].to_numpy(float))
        numbers = {name: round(value, digits) for name, value in vars(pairs).items() if name != "n"}
        yield PairedCell(
            kind=kind,
            stratum=stratum,
            structure=structure,
            metric=metric,
            patients=pairs.n,
            left_out=lacking,
            **numbers,
        )


def _members(cases: pd.DataFrame, kind: str) -> dict[str, pd.Index]:
    """Stratum → its patients."""
    members = members_of(cases, "all" if kind == "structure" else kind)
    return {stratum: pd.Index(rows["patient"].unique()) for stratum, rows in members.items()}


def _values(cases: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """(structure, metric) → candidate and released by patient; what one model leaves undefined is in neither.

    So is an EF below −100 %, of a cavity that the model has hardly drawn at ED: one would outweigh all patients.
    """
    patients, values = patient_table(cases), {}
    for structure, metric in PLACES:
        if metric in (EF_BIAS, EF_ERROR):
            (ef,) = (q for q in QUANTITIES if q.key == f"{structure.lower()}_ef_percent")
            predicted = patients[ef.predicted].where(patients[ef.predicted].abs() <= MOST_EF)
            error = predicted - patients[ef.reference]
            signed = patients.assign(error=error.abs() if metric == EF_ERROR else error)
            values[structure, metric] = _side_by_side(signed, ["patient"], "error")
        else:
            rows = _side_by_side(cases[cases["structure"] == structure], ["patient", "phase"], metric)
            both = rows.where(rows.notna().all(axis=1))
            values[structure, metric] = both.groupby(level="patient").mean()
    return values


def _side_by_side(rows: pd.DataFrame, index: list[str], value: str) -> pd.DataFrame:
    """One value of both models; columns candidate and released."""
    table = rows.set_index([*index, "model"])[value].unstack("model")
    return table.reindex(columns=[CANDIDATE, RELEASED]).sort_index()
