"""The layout that every import ends in, and the way back from it: ``OUT/cases.csv`` names each phase's two files."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from model.errors import CohortError, DataError, PhaseError, UnreadableError
from tasks.cases import CASES_FILE, Frame, Patient, labels_named
from tasks.importers.checks import faults_of, raise_all

PHASES = ("ED", "ES")
COLUMNS = (
    *("patient", "site", "phase", "spacing_z_mm", "spacing_y_mm", "spacing_x_mm"),
    *("vendor", "centre", "group", "labels", "image", "mask"),
)


def read_imported(root: Path) -> list[Patient]:
    """Read what :func:`tasks.importers.write.import_site` has written, at any depth below ``root``.

    Args:
        root: searched for case tables.

    Returns:
        The patients by pseudonym.

    Raises:
        CohortError: no case table, or one patient in two.
        DataError: of the kind of the fault; several in one error, a line each.
    """
    tables = sorted(root.rglob(CASES_FILE))
    if not tables:
        mend = "give a folder that `cardiofed data import` has written"
        raise CohortError(f"no {CASES_FILE} found", str(root), mend)
    patients: dict[str, Patient] = {}
    faults: list[DataError] = []
    for table in tables:
        for name, lines in _by_patient(table).items():
            try:
                patient = _patient(name, lines, table)
            except DataError as fault:
                faults.append(fault)
                continue
            if name in patients:
                faults.append(CohortError(f"patient {name} stands in two imports", str(table), "remove one"))
            patients[name] = patient
            faults += faults_of(patient)
    raise_all(faults, root)
    return [patients[name] for name in sorted(patients)]


def read_table(table: Path) -> list[dict[str, str]]:
    """The lines of an import's case table.

    Args:
        table: its file.

    Returns:
        A line per patient and phase, by column.

    Raises:
        UnreadableError: it cannot be read, or a column is missing.
    """
    mend = "import the archive again"
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if absent := set(COLUMNS) - set(rows.fieldnames or ()):
                raise UnreadableError(f"has no column {', '.join(sorted(absent))}", str(table), mend)
            return [{name: line[name] or "" for name in COLUMNS} for line in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableError(f"cannot be read: {error}", str(table), mend) from error


def _by_patient(table: Path) -> dict[str, dict[str, dict[str, str]]]:
    found: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for line in read_table(table):
        found[line["patient"]][line["phase"]] = line
    return found


def _patient(name: str, lines: dict[str, dict[str, str]], table: Path) -> Patient:
    if set(lines) != set(PHASES):
        raise PhaseError(f"patient {name} has {sorted(lines)}, not ED and ES", str(table), "import again")
    frames, root = [], table.parent
    for phase in PHASES:
        line = lines[phase]
        image, mask = (root / line[kind] for kind in ("image", "mask"))
        if not all(path.resolve().is_relative_to(root.resolve()) for path in (image, mask)):
            raise UnreadableError(f"names a file outside its folder for {name}", str(table), "import again")
        try:
            frames.append(Frame(image, mask, labels_named(line["labels"]), holes=True))
        except ValueError as error:
            raise UnreadableError(f"labels of {name}: {error}", str(table), "import again") from error
    ed = lines["ED"]
    return Patient(name, ed["group"], ed["vendor"], ed["centre"], *frames)
