"""The gate: every structure, pathology and vendor, new model against released one on the same patients."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from model.gate import Comparison, compare_bias, compare_means
from model.labels import STRUCTURES
from tasks.clinical.agree import FEWEST, QUANTITIES, patient_table
from tasks.clinical.strata import members_of
from tasks.release.records import Finding

CANDIDATE, RELEASED = "candidate", "released"
KINDS = ("structure", "group", "vendor")
METRICS = {"dice": True, "hd95_mm": False}
"""Metric → whether higher is better."""
EF_BIAS = "ef_bias_percent"
VENTRICLES = ("LV", "RV")


def judge_strata(cases: pd.DataFrame, seed: int, fewest: int = FEWEST) -> tuple[Finding, ...]:
    """Compare two models stratum by stratum.

    Args:
        cases: a row per model (``candidate`` and ``released``), site, patient, phase and structure, as
            :func:`tasks.evaluate.evaluate_cases` returns it with model, owner and site.
        seed: of the intervals.
        fewest: patients below which a stratum decides nothing.

    Returns:
        A finding per stratum, structure and metric, in a fixed order.
    """
    errors = _ef_errors(cases)
    return tuple(
        finding
        for kind in KINDS
        for stratum, rows in members_of(cases, "all" if kind == "structure" else kind).items()
        for finding in _of_stratum(rows, errors, (kind, stratum), seed, fewest)
    )


def worse_findings(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Those that refuse the release."""
    return tuple(finding for finding in findings if finding.verdict == "worse")


def undecided_findings(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Those with too few patients."""
    return tuple(finding for finding in findings if finding.verdict == "not decidable")


def _of_stratum(
    rows: pd.DataFrame, errors: dict[str, pd.DataFrame], place: tuple[str, str], seed: int, fewest: int
) -> Iterator[Finding]:
    for structure in STRUCTURES:
        own = rows[rows["structure"] == structure]
        for metric, higher in METRICS.items():
            pairs = _pairs(own, metric)
            found = _compare(pairs, seed, fewest, higher)
            yield _finding((*place, structure, metric), found, len(pairs))
    patients = pd.MultiIndex.from_frame(rows[["site", "patient"]].drop_duplicates())
    for ventricle in VENTRICLES:
        own = errors[ventricle][errors[ventricle].index.isin(patients)]
        defined = own.dropna()
        arrays = defined[CANDIDATE].to_numpy(float), defined[RELEASED].to_numpy(float)
        biases = compare_bias(*arrays, np.random.default_rng(seed), fewest)
        yield _finding((*place, ventricle, EF_BIAS), biases, len(own))


def _pairs(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Patient means of both models; index (site, patient). A case that only one model defines is in neither."""
    cases = _side_by_side(rows, ["site", "patient", "phase"], metric)
    both = cases.where(cases.notna().all(axis=1))
    return both.groupby(level=["site", "patient"]).mean()


def _compare(pairs: pd.DataFrame, seed: int, fewest: int, higher: bool) -> Comparison:
    defined = pairs.dropna()
    sites = [str(site) for site, _ in defined.index]
    arrays = defined[CANDIDATE].to_numpy(float), defined[RELEASED].to_numpy(float)
    return compare_means(*arrays, sites, np.random.default_rng(seed), fewest, higher)


def _ef_errors(cases: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Ventricle → EF minus reference under both models; index (site, patient)."""
    patients, errors = patient_table(cases), {}
    for ventricle in VENTRICLES:
        (ef,) = (q for q in QUANTITIES if q.key == f"{ventricle.lower()}_ef_percent")
        signed = patients.assign(error=patients[ef.predicted] - patients[ef.reference])
        errors[ventricle] = _side_by_side(signed, ["site", "patient"], "error")
    return errors


def _side_by_side(rows: pd.DataFrame, index: list[str], value: str) -> pd.DataFrame:
    """One value of both models; columns candidate and released."""
    table = rows.set_index([*index, "model"])[value].unstack("model")
    return table.reindex(columns=[CANDIDATE, RELEASED]).sort_index()


def _finding(place: tuple[str, str, str, str], found: Comparison, patients: int) -> Finding:
    kind, stratum, structure, metric = place
    numbers = {name: _or_none(value) for name, value in vars(found).items() if name in _NUMBERS}
    return Finding(
        kind=kind,
        stratum=stratum,
        structure=structure,
        metric=metric,
        patients=found.patients,
        left_out=patients - found.patients,
        verdict=found.verdict,
        **numbers,
    )


_NUMBERS = ("released", "candidate", "difference", "low", "high")


def _or_none(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
