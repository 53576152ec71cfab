"""The clinical tables of an evaluation, beside its case table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tasks.clinical.agree import agreement_table, patient_table
from tasks.clinical.strata import stratum_table
from tasks.files import write_atomic
from tasks.summary import read_cases


def write_clinical(cases_file: Path, seed: int) -> None:
    """Write ``patients.csv``, ``agreement.csv`` and ``strata.csv`` beside a case table.

    Args:
        cases_file: ``evaluation/cases.csv``.
        seed: of the intervals.

    Raises:
        DataError: the case table is malformed.
        DiskError: a file could not be written.
    """
    cases = read_cases(cases_file)
    if cases is None or cases.empty:
        return
    patients = patient_table(cases)
    tables = {
        "patients.csv": patients,
        "agreement.csv": agreement_table(patients),
        "strata.csv": stratum_table(cases, seed),
    }
    for name, table in tables.items():
        _write(cases_file.with_name(name), table)


def _write(path: Path, table: pd.DataFrame) -> None:
    write_atomic(path, table.to_csv(index=False, float_format="%.6g").encode())
