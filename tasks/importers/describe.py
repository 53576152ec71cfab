"""A table of what an import has read: grid, plane, labels, and the volumes that the masks say."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.errors import CohortError
from model.labels import STRUCTURES, UNKNOWN
from model.volumes import volume_ml
from tasks.cases import CASES_FILE, Volume, labels_named, read_volume
from tasks.importers.canonical import read_table

HEAD = ("patient", "site", "phase", "vendor", "x × y × z", "spacing, mm", "tilt", "RV", "MYO", "LV", "slices")


def describe(root: Path) -> str:
    """Describe every case of an import.

    Args:
        root: holds imports at any depth.

    Returns:
        A markdown table, a row per patient and phase: volumes in ml, ``—`` for a structure that was not annotated;
        ``tilt`` is the angle between the slices' normal and the patient's foot-head axis; ``slices`` is how many
        are annotated.

    Raises:
        CohortError: there is no import.
        DataError: a table or file cannot be read.
    """
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    tables = sorted(root.rglob(CASES_FILE))
    if not tables:
        raise CohortError(
            f"no {CASES_FILE} found", str(root), "give a folder that `cardiofed data import` has written"
        )
    for table in tables:
        for line in read_table(table):
            image, mask = (
                read_volume(table.parent / line[kind], kind == "mask") for kind in ("image", "mask")
            )
            shape = " × ".join(str(n) for n in image.values.shape[::-1])
            spacing = " × ".join(f"{step:.2f}" for step in image.spacing_mm[::-1])
            known = labels_named(line["labels"])
            ml = [_ml(mask, label) if label in known else "—" for label in STRUCTURES.values()]
            drawn = int((mask.values != UNKNOWN).any((1, 2)).sum())
            cells = (
                line["patient"],
                line["site"],
                line["phase"],
                line["vendor"],
                shape,
                spacing,
                _tilt(image),
            )
            lines.append("| " + " | ".join((*cells, *ml, f"{drawn} of {len(mask.values)}")) + " |")
    return "\n".join(lines)


def _ml(mask: Volume, label: int) -> str:
    return f"{volume_ml(mask.values, label, mask.spacing_mm):.0f} ml"


def _tilt(image: Volume) -> str:
    along = image.affine[:3, image.orientation.axes[0]]
    cosine = abs(along[2]) / np.linalg.norm(along)
    return f"{np.degrees(np.arccos(min(1.0, cosine))):.0f}°"
