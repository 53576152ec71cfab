"""Tables and label names that come with an archive."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import LabelError, PhaseError, UnreadableError
from model.labels import LV, MYO, RV, UNKNOWN

_WORDS = {
    **dict.fromkeys(("rv", "rvc", "rvcavity", "rightventricle", "rvbloodpool", "rightventricularcavity"), RV),
    **dict.fromkeys(("myo", "myocardium", "lvmyo", "lvm", "lvmyocardium", "mlv", "lvwall"), MYO),
    **dict.fromkeys(("lv", "lvc", "lvcavity", "leftventricle", "lvbloodpool", "leftventricularcavity"), LV),
    "background": 0,
    "ignore": UNKNOWN,
}


def read_lines(path: Path, needed: Iterable[str]) -> list[dict[str, str]]:
    """Read a comma-separated table.

    Args:
        path: of the table.
        needed: columns it must have.

    Returns:
        A line per row, by lower-case column name, blanks at the ends cut off.

    Raises:
        UnreadableError: it cannot be read, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            names = {name.strip().lower() for name in rows.fieldnames or () if name}
            if absent := sorted(set(needed) - names):
                said = f"has no column {' and no '.join(absent)}"
                raise UnreadableError(
                    said, str(path), f"its columns are {', '.join(sorted(names)) or 'none'}"
                )
            return [{k.strip().lower(): (v or "").strip() for k, v in row.items() if k} for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error, AttributeError) as error:
        raise UnreadableError(
            f"cannot be read: {error}", str(path), "give a comma-separated table"
        ) from error


def frame_index(text: str, phase: str, count: int | None, where: str) -> int:
    """A frame number from 0 as a table writes it.

    Args:
        text: of the cell.
        phase: ``ED`` or ``ES``, for the error.
        count: frames there are; None when that is not known.
        where: table and patient, for the error.

    Returns:
        The number.

    Raises:
        PhaseError: no whole number, or beyond the last frame.
    """
    mend = f"write the frame of {phase}, counted from 0"
    if not re.fullmatch(r"\d{1,6}(\.0)?", text):
        raise PhaseError(f"{phase} is '{text[:20]}', not a frame number", where, mend)
    number = int(float(text))
    if count is not None and number >= count:
        raise PhaseError(f"{phase} is frame {number} of {count}, counted from 0", where, mend)
    return number


def label_map(named: Mapping[Any, Any], where: str) -> dict[int, int]:
    """What each value of an archive's masks is here.

    Args:
        named: as in a ``dataset.json``: name → value (nnU-Net) or value → name (MSD).
        where: file, for the error.

    Returns:
        Value there → label here; 255 for nnU-Net's ``ignore``.

    Raises:
        LabelError: a name that means no structure, one structure twice, or no structure at all.
    """
    mend = "name the labels background, RV, MYO, LV (and ignore) in dataset.json"
    found: dict[int, int] = {}
    for left, right in named.items():
        name, value = (right, left) if isinstance(right, str) else (left, right)
        label = _WORDS.get(re.sub(r"[^a-z]", "", str(name).lower()))
        try:
            number = int(value)
        except (TypeError, ValueError) as error:
            said = f"label '{name}' is {value!r}, not one whole number"
            raise LabelError(said, where, "regions are not read: give plain labels") from error
        if label is None:
            raise LabelError(f"label '{name}' is no structure we know", where, mend)
        if number in found or label in found.values():
            raise LabelError(f"label '{name}' or value {number} stands twice", where, mend)
        found[number] = label
    if not set(found.values()) - {0, UNKNOWN}:
        raise LabelError("names no structure", where, mend)
    return {0: 0} | found


def relabel(mask: NDArray[Any], labels: Mapping[int, int]) -> NDArray[np.uint8]:
    """A mask in our label order.

    Args:
        mask: any shape.
        labels: value there → label here.

    Returns:
        The same shape, uint8.

    Raises:
        LabelError: a value that the map does not name.
    """
    values = np.unique(mask)
    if strange := [float(value) for value in values if value not in labels]:
        said = f"the mask holds labels {strange[:5]} that the label map does not name"
        raise LabelError(said, mend="correct the mask, or name the label")
    out = np.zeros(mask.shape, np.uint8)
    for value, label in labels.items():
        out[mask == value] = label
    return out
