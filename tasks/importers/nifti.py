"""NIfTI with an nnU-Net or MSD ``dataset.json``: images, masks and what the labels are called.

``imagesTr/NAME_0000.nii.gz`` (nnU-Net) or ``imagesTr/NAME.nii.gz`` (MSD), ``labelsTr/NAME.nii.gz``. Which of them are
one patient's ED and ES says ``phases.csv`` beside ``dataset.json``, with the columns ``case`` (NAME), ``patient`` and
``phase``, and if wanted ``group``, ``vendor``, ``centre``; without it NAME is ``PATIENT_ED`` and ``PATIENT_ES``.

A structure that ``dataset.json`` does not name was not annotated; nnU-Net's ``ignore`` label marks single voxels so.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from model.errors import CohortError, LabelError, PhaseError, UnreadableError
from model.labels import UNKNOWN
from tasks.importers.found import NOT_SAID, Found, Scan, Study
from tasks.importers.tables import label_map, read_lines, relabel
from tasks.importers.voxels import on_grid, read_voxels

TABLE, PHASES = "phases.csv", ("ED", "ES")
NAME = re.compile(r"(?P<name>.+?)(_0000)?\.nii(\.gz)?")
BY_NAME = re.compile(r"(?P<patient>.+)_(?P<phase>ED|ES)", re.IGNORECASE)
Line = Mapping[str, str]


def find_nifti(root: Path) -> list[Found]:
    """Find the patients of a data set.

    Args:
        root: of the archive.

    Returns:
        The patients by name.

    Raises:
        UnreadableError: no ``dataset.json`` or one that cannot be read.
        LabelError: it names labels that are no structures of ours.
        PhaseError: a case without a phase, or a patient without one of both.
        CohortError: a case that the table names and nobody finds, or the other way round.
    """
    dataset = root / "dataset.json"
    labels = read_labels(dataset)
    cases = _cases(root / "labelsTr")
    lines = _lines(root, cases)
    patients: dict[str, dict[str, tuple[str, Line]]] = defaultdict(dict)
    for case, line in lines.items():
        phase = line["phase"].upper()
        if phase not in PHASES or phase in patients[line["patient"]]:
            said = f"case {case} is phase '{line['phase'][:20]}'"
            said += " again" if phase in PHASES else ", not ED or ES"
            raise PhaseError(said, str(root), "give each patient one case ED and one ES")
        patients[line["patient"]][phase] = (case, line)
    for patient, found in patients.items():
        if set(found) != set(PHASES):
            raise PhaseError(f"patient {patient} has {sorted(found)} alone", str(root), "add the other phase")
    images = _cases(root / "imagesTr")
    return [
        Found(name, root, partial(_read, found, images, cases, labels)) for name, found in patients.items()
    ]


def read_labels(dataset: Path) -> dict[int, int]:
    """The label map of a ``dataset.json``.

    Args:
        dataset: the file.

    Returns:
        Value there → label here.

    Raises:
        UnreadableError: it is missing or no JSON with ``labels``.
        LabelError: a label is no structure of ours.
    """
    try:
        named = json.loads(dataset.read_text("utf-8"))["labels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"no usable dataset.json: {type(error).__name__} {error}"
        raise UnreadableError(said, str(dataset), "write one with 'labels', as nnU-Net has it") from error
    if not isinstance(named, dict):
        raise LabelError(
            "'labels' is no table of names and values", str(dataset), "write it as nnU-Net has it"
        )
    return label_map(named, str(dataset))


def _cases(folder: Path) -> dict[str, Path]:
    """Files by case name."""
    if not folder.is_dir():
        raise UnreadableError(
            f"no folder {folder.name}", str(folder.parent), "give the data set's own folder"
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = NAME.fullmatch(path.name)
        if match and found.setdefault(match["name"], path) != path:
            raise CohortError(f"case {match['name']} has two files", str(path), "remove one")
    return found


def _lines(root: Path, cases: Mapping[str, Path]) -> dict[str, Line]:
    """Patient, phase and more by case."""
    table = root / TABLE
    if table.exists():
        rows = read_lines(table, ("case", "patient", "phase"))
        lines = {row["case"]: row for row in rows}
        if len(lines) < len(rows):
            raise CohortError("a case has two rows", str(table), "keep one")
        if strangers := sorted(set(lines) ^ set(cases)):
            said = f"cases in the table or in labelsTr alone: {', '.join(strangers[:5])}"
            raise CohortError(said, str(table), "list exactly the cases of labelsTr")
        return dict(lines)
    found = {case: BY_NAME.fullmatch(case) for case in cases}
    if nameless := [case for case, match in found.items() if match is None]:
        mend = f"name cases PATIENT_ED and PATIENT_ES, or add {TABLE}"
        raise PhaseError(f"case {nameless[0]} says neither patient nor phase", str(root), mend)
    return {case: match.groupdict() for case, match in found.items() if match}


def _read(
    found: Mapping[str, tuple[str, Line]],
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    labels: Mapping[int, int],
) -> Study:
    line = found["ED"][1]
    group, vendor, centre = (line.get(name) or NOT_SAID for name in ("group", "vendor", "centre"))
    named = frozenset(labels.values()) - {0, UNKNOWN}
    scans = {phase: _scan(images.get(case), masks[case], labels, named) for phase, (case, _) in found.items()}
    return Study(group, vendor, centre, scans)


def _scan(image: Path | None, mask: Path, labels: Mapping[int, int], named: frozenset[Any]) -> Scan:
    image = image or mask.parent.with_name("imagesTr") / mask.name
    values, affine = read_voxels(image)
    stored, placed = read_voxels(mask, mask=True)
    return Scan(
        values, relabel(on_grid(stored, placed, values.shape, affine, str(mask)), labels), affine, named
    )
