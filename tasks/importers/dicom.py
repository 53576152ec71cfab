"""DICOM folders, one per patient, each with one short-axis cine among whatever else was exported.

Masks are optional: ``ED_mask.nii.gz`` and ``ES_mask.nii.gz`` in the patient's folder, drawn on the cine's grid, in our
label order or in that of a ``dataset.json`` beside the patients' folders. Which phases are ED and ES says
``phases.csv`` there (``patient``, ``ed``, ``es`` counted from 0, and if wanted ``group``, ``centre``). Without it ED is
the first phase after the trigger, and ES the one that looks most unlike it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from model.errors import CohortError, PairError, PhaseError, UnreadableError
from model.labels import STRUCTURES, UNKNOWN
from tasks.cases import ALL_LABELS
from tasks.dicom.cine import Cine, read_cine
from tasks.dicom.folder import holds_dicom
from tasks.dicom.risks import risks_of
from tasks.importers.found import NOT_SAID, Found, Scan, Study
from tasks.importers.nifti import read_labels
from tasks.importers.tables import frame_index, read_lines, relabel
from tasks.importers.voxels import on_grid, read_voxels

TABLE = "phases.csv"


def find_dicom(root: Path) -> list[Found]:
    """Find a patient in every folder directly below ``root``, or one in ``root`` itself if that holds the files.

    Args:
        root: of the archive.

    Returns:
        The patients, in order of their folders.

    Raises:
        UnreadableError: no folder, or no DICOM in it.
        CohortError: a row of ``phases.csv`` without folder, or one patient in two rows.
    """
    if not root.is_dir():
        raise UnreadableError("no such folder", str(root), "check the path")
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and holds_dicom(path)]
    if not holds_dicom(root):
        raise UnreadableError("no DICOM file found", str(root), "give a folder that holds DICOM exports")
    if not folders or any(holds_dicom(path) for path in root.iterdir() if path.is_file()):
        folders = [root]
    lines = _lines(root, {folder.name for folder in folders})
    labels = read_labels(root / "dataset.json") if (root / "dataset.json").exists() else {}
    return [Found(one.name, one, partial(_read, one, lines.get(one.name, {}), labels)) for one in folders]


def guess_es(cine: Cine, ed: int = 0) -> int:
    """The phase whose images differ most from ED's: where the heart is smallest, by and large.

    Args:
        cine: with two phases or more.
        ed: index of ED.

    Returns:
        Index of ES.
    """
    y, x = (slice(n // 4, n - n // 4) for n in cine.values.shape[2:])  # the heart's part of the image
    middle = cine.values[:, :, y, x]
    return int(np.abs(middle - middle[ed]).mean((1, 2, 3)).argmax())


def cine_scan(cine: Cine, phase: int, mask: np.ndarray, labels: frozenset[int]) -> Scan:
    """One phase of a cine with a mask ``(Z, Y, X)``, along DICOM's own axes (x, y, z)."""
    return Scan(cine.values[phase].transpose(2, 1, 0), mask.transpose(2, 1, 0), cine.affine, labels)


def _lines(root: Path, names: set[str]) -> dict[str, dict[str, str]]:
    table = root / TABLE
    if not table.exists():
        return {}
    rows = read_lines(table, ("patient", "ed", "es"))
    lines = {row["patient"]: row for row in rows}
    if len(lines) < len(rows):
        raise CohortError("a patient has two rows", str(table), "keep one")
    if strangers := sorted(set(lines) - names):
        raise CohortError(
            f"names unknown patients: {', '.join(strangers[:5])}", str(table), "use the folders' names"
        )
    return lines


def _read(folder: Path, line: Mapping[str, str], labels: Mapping[int, int]) -> Study:
    cine = read_cine(folder)
    count, where = len(cine.values), f"{TABLE}, row {folder.name}"
    ed = frame_index(line["ed"], "ED", count, where) if line else 0
    es = frame_index(line["es"], "ES", count, where) if line else guess_es(cine, ed)
    if ed == es:
        raise PhaseError(f"ED and ES are both phase {ed}", where, "correct the table")
    scans = {phase: _scan(cine, at, folder, phase, labels) for phase, at in (("ED", ed), ("ES", es))}
    masked = [phase for phase, scan in scans.items() if scan.labels]
    if len(masked) == 1:
        raise PairError(f"there is a mask of {masked[0]} alone", str(folder), "add the other, or remove it")
    said = (line.get("group") or NOT_SAID, cine.vendor, line.get("centre") or NOT_SAID)
    return Study(*said, scans, risks_of(cine))


def _scan(cine: Cine, at: int, folder: Path, phase: str, labels: Mapping[int, int]) -> Scan:
    path = folder / f"{phase}_mask.nii.gz"
    if not path.exists():
        return cine_scan(cine, at, np.full(cine.values.shape[1:], UNKNOWN, np.uint8), frozenset())
    image = cine.values[at].transpose(2, 1, 0)
    stored, placed = read_voxels(path, mask=True)
    mask = on_grid(stored, placed, image.shape, cine.affine, str(path))
    plain = {value: value for value in (0, *STRUCTURES.values())}
    named = frozenset(labels.values()) - {0, UNKNOWN} if labels else ALL_LABELS
    return Scan(image, relabel(mask, labels or plain), cine.affine, named)
