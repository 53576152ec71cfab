"""A hospital's prepared data: every file it names still there, as the table says, and announced as it is.

Nothing here tells a file's name or a patient's: cases are named by the site's own pseudonyms, such as p001.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model.errors import DataError, GeometryError, LabelError, UnreadableError
from model.labels import N_CLASSES, UNKNOWN
from model.split import SPLITS
from tasks.cases import CASES_FILE, CaseRow, SiteCard, Volume, read_cases, read_volume
from tasks.doctor.finding import Finding, broken, named, well
from tasks.enrol import read_card
from tasks.homes import Home
from tasks.ledger import card_key, find_record
from tasks.slices import load_slices
from tasks.small_cells import shareable
from tasks.workspace import Workspace

_FAULTS_SHOWN = 5
_JOIN = "prepare the data again with `cardiofed site join`"


@named("case table")
def case_table(ws: Workspace, home: Home) -> Finding:
    """Table and card can be read, and each side has as many patients and cached slices as the card says."""
    folder = ws.data_home(home.name)
    if not (folder / CASES_FILE).exists():
        return broken("no data is prepared here", "run `cardiofed site join`")
    try:
        rows, card = read_cases(folder), read_card(folder)
        slices = {split: len(load_slices(folder, split).z) for split in SPLITS}
    except UnreadableError:
        return broken("the case table, the card or the cached slices cannot be read", _JOIN)
    patients = {split: len({row.patient for row in rows if row.split == split}) for split in SPLITS}
    if (patients, slices) != (card.patients, card.slices):
        return broken("the case table or the cached slices are not those that the card counts", _JOIN)
    return well(f"{sum(patients.values())} patients, {sum(slices.values())} slices")


@named("images")
def images(ws: Workspace, home: Home) -> Finding:
    """Every image and mask can be read to its last voxel, with the table's spacing, one shape and labels 0 to 3."""
    rows = read_cases(ws.data_home(home.name))
    faults = [f"{row.patient} {row.phase} {fault}" for row in rows if (fault := next(_faults(row), ""))]
    if not faults:
        return well(f"{2 * len(rows)} images and masks can be read and are as the table says")
    more = len(faults) - _FAULTS_SHOWN
    told = faults[:_FAULTS_SHOWN] + [f"and {more} more"] * (more > 0)
    mend = f"restore the files that the rows in {CASES_FILE} name, or mend the data and join again"
    return broken(f"{len(faults)} of {len(rows)} cases: {'; '.join(told)}", mend)


@named("card")
def announced_card(ws: Workspace, home: Home) -> Finding:
    """The ledger's card, by which the hub invites, is the one of the data prepared here."""
    told = find_record(ws.store, card_key(home.name), SiteCard)
    if told is None:
        return broken(
            "the ledger holds no card of this hospital: it has not joined", "run `cardiofed site join`"
        )
    if told != shareable(read_card(ws.data_home(home.name)), ws.params.privacy.fewest):
        return broken("the ledger's card tells of other data than is prepared here", _JOIN)
    return well("the ledger's is that of the data here")


def _faults(row: CaseRow) -> Iterator[str]:
    try:
        image = _read(row.image, "image", False)
        mask = _read(row.mask, "mask", True)
    except DataError as error:
        yield error.what
        return
    if not np.allclose(image.spacing_mm, row.spacing_mm, atol=1e-4):
        yield "image has another spacing than the table"
    same_spacing = np.allclose(mask.spacing_mm, image.spacing_mm, atol=1e-4)
    if mask.values.shape != image.values.shape or not same_spacing:
        yield "mask has another shape or spacing than the image"
    if not np.isin(mask.values, (*range(N_CLASSES), UNKNOWN)).all():
        yield f"mask has labels other than 0 to {N_CLASSES - 1}"


def _read(path: str, what: str, mask: bool) -> Volume:
    """As :func:`tasks.cases.read_volume`; its errors name the file, these do not."""
    try:
        return read_volume(Path(path), mask)
    except DataError as error:
        kinds = {GeometryError: "has no usable geometry", LabelError: "has no usable labels"}
        missing = isinstance(error.__cause__, FileNotFoundError)
        how = "is missing" if missing else kinds.get(type(error), "cannot be read")
        raise type(error)(f"{what} {how}") from None
