"""Sunnybrook Cardiac Data: a folder ``NAME`` of DICOM beside a folder ``NAME_contours`` for every patient.

The readers drew the endocardium at ED and ES and the epicardium at ED, on some slices: there is no RV, no MYO at ES,
and slices without a contour are unknown, not empty.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import PairError, UnreadableError
from model.labels import UNKNOWN
from tasks.dicom.risks import risks_of
from tasks.dicom.sunnybrook import read_sunnybrook
from tasks.importers.dicom import cine_scan
from tasks.importers.found import NOT_SAID, Found, Study

CONTOURS = "_contours"


def find_sunnybrook(root: Path) -> list[Found]:
    """Find the pairs of folders directly below ``root``.

    Args:
        root: of the archive.

    Returns:
        The patients, in order of their folders.

    Raises:
        UnreadableError: no folder.
        PairError: images without contours, or the other way round.
    """
    if not root.is_dir():
        raise UnreadableError("no such folder", str(root), "check the path")
    folders = {path.name for path in root.iterdir() if path.is_dir()}
    images = sorted(name for name in folders if not name.endswith(CONTOURS))
    if lonely := sorted(
        name for name in folders if name.endswith(CONTOURS) and name.removesuffix(CONTOURS) not in images
    ):
        raise PairError(f"{lonely[0]} stands without images", str(root), "put the folder of images beside it")
    if bare := [name for name in images if f"{name}{CONTOURS}" not in folders]:
        raise PairError(f"{bare[0]} stands without contours", str(root), f"put {bare[0]}{CONTOURS} beside it")
    return [Found(name, root / name, partial(_read, root / name)) for name in images]


def _read(folder: Path) -> Study:
    found = read_sunnybrook(folder, folder.with_name(f"{folder.name}{CONTOURS}"))
    ed = _mask(found.ed_mask, found.ed_slices)
    es = _mask(found.es_mask, found.es_slices)
    scans = {
        "ED": cine_scan(found.cine, found.ed, ed, found.ed_labels),
        "ES": cine_scan(found.cine, found.es, es, found.es_labels),
    }
    return Study(NOT_SAID, found.cine.vendor, NOT_SAID, scans, risks_of(found.cine))


def _mask(drawn: NDArray[np.uint8], slices: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The mask with the slices on which nobody drew marked as unknown."""
    return np.where(slices[:, None, None], drawn, np.uint8(UNKNOWN))
