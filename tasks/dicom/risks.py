"""What may still name a patient in a cine: text burned into the pixels, and private tags nobody expects.

An import keeps voxels and affine alone, so tags cannot survive it; they are reported because they say how an archive
was made. Text in the pixels does survive, so somebody must look.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tasks.dicom.cine import Cine
from tasks.dicom.header import load, quiet

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
EXPECTED_PRIVATE = re.compile(
    r"siemens|gems_|ge_|philips|spi release|toshiba|pmtf|canon|uih|image private header|elscint|hitachi|fuji|mayo",
    re.IGNORECASE,
)
"""Creators of private tags that scanners of these vendors write into every image."""
STILL_PIXELS, FEW_ROWS = 30, 5


def risks_of(cine: Cine) -> tuple[str, ...]:
    """What a person should look at before a cine is used.

    Args:
        cine: with the files it came from.

    Returns:
        A line per risk, without any value from the files; empty when nothing was seen.
    """
    files = sorted({path for row in cine.files for path in row})
    return (*_header_risks(files), *_text_risks(cine))


def _header_risks(files: Iterable[Path]) -> list[str]:
    said: Counter[str] = Counter()
    for path in files:
        with quiet():
            said.update(set(_risks_in(load(path))))
    return [f"{what} ({count} files)" for what, count in sorted(said.items())]


def _risks_in(data: Any) -> Iterable[str]:
    if str(data.get("BurnedInAnnotation") or "").upper() == "YES":
        yield "the header says that text is burned into the pixels"
    kind = str(data.get("SOPClassUID") or "")
    if kind.startswith(SECONDARY_CAPTURE) or data.get("ConversionType"):
        yield "a secondary capture: screenshots often show names"
    if any(element.tag.group >> 8 == 0x60 and not element.tag.is_private for element in data):
        yield "an overlay plane"
    odd = {_creator(data, element) for element in data if element.tag.is_private}
    unexpected = [creator for creator in odd if not EXPECTED_PRIVATE.search(creator)]
    if unexpected:
        yield "private tags of no scanner we know"


def _creator(data: Any, element: Any) -> str:
    if element.tag.element < 0x1000:
        return str(element.value)
    block = data.get((element.tag.group, element.tag.element >> 8))
    return "" if block is None else str(block.value)


def _text_risks(cine: Cine) -> list[str]:
    """Bright pixels that never change: hearts move and noise flickers, burned-in marks do neither."""
    low, high = cine.values.min(0), cine.values.max(0)
    still = (low == high) & (high >= 0.95 * cine.values.max())
    found = []
    for z, plane in enumerate(still):
        rows = np.flatnonzero(plane.any(1))
        if plane.sum() >= STILL_PIXELS and len(rows) >= FEW_ROWS:
            found.append(f"slice {z + 1}, rows {rows[0] + 1} to {rows[-1] + 1}")
    return [f"bright marks that never move, perhaps text: {'; '.join(found)}"] if found else []
