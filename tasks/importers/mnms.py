"""The M&Ms challenge: ``CODE/CODE_sa.nii.gz`` and ``CODE_sa_gt.nii.gz``, 4-D, and one CSV that says what is ED and ES.

Labels there are 1 LV, 2 MYO, 3 RV; frames are counted from 0.

Source: Campello et al., IEEE TMI 2021.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from model.errors import CohortError, PairError, PhaseError, UnreadableError
from model.labels import LV, MYO, RV
from tasks.importers.found import NOT_SAID, Found, Scan, Study
from tasks.importers.tables import frame_index, read_lines, relabel
from tasks.importers.voxels import frame_count, on_grid, read_voxels

LABELS = {0: 0, 1: LV, 2: MYO, 3: RV}
IMAGE, MASK = "_sa.nii.gz", "_sa_gt.nii.gz"
CODE = "external code"


def find_mnms(root: Path) -> list[Found]:
    """Find the subjects below ``root``; rows of the CSV without a folder here are another part of the challenge.

    Args:
        root: of the archive.

    Returns:
        The subjects, in order of their folders.

    Raises:
        UnreadableError: no folder, no CSV, or one without the columns.
        CohortError: a subject that the CSV does not name, or names twice.
    """
    if not root.is_dir():
        raise UnreadableError("no such folder", str(root), "check the path")
    table = _table(root)
    lines: dict[str, dict[str, str]] = {}
    for line in read_lines(table, (CODE, "ed", "es")):
        if lines.setdefault(line[CODE], line) != line:
            raise CohortError(f"subject {line[CODE]} has two rows", str(table), "keep one")
    folders = sorted({path.parent for kind in (IMAGE, MASK) for path in root.rglob(f"*{kind}")})
    if unknown := [folder.name for folder in folders if folder.name not in lines]:
        said = f"subjects without a row: {', '.join(unknown[:5])}"
        raise CohortError(said, str(table), "add their rows")
    names = [folder.name for folder in folders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CohortError(f"subject {twice[0]} has two folders", str(root), "remove one")
    where = str(table)
    return [Found(one.name, one, partial(_read, one, lines[one.name], where)) for one in folders]


def _table(root: Path) -> Path:
    tables = sorted(root.glob("*.csv"))
    if len(tables) != 1:
        said = f"{len(tables)} CSV files beside the subjects' folders, not one"
        raise UnreadableError(said, str(root), "put the challenge's CSV there, and no other")
    return tables[0]


def _read(folder: Path, line: dict[str, str], table: str) -> Study:
    image, mask = folder / f"{folder.name}{IMAGE}", folder / f"{folder.name}{MASK}"
    for path, twin in ((image, mask), (mask, image)):
        if not path.exists():
            raise PairError(f"there is {twin.name} without {path.name}", str(folder), "bring it back")
    count, where = frame_count(image), f"{table}, row {folder.name}"
    if frame_count(mask) != count:
        said = f"the mask has {frame_count(mask)} frames, the image {count}"
        raise PairError(said, str(mask), "give the mask of the whole cine")
    at = {phase: frame_index(line[phase.lower()], phase, count, where) for phase in ("ED", "ES")}
    if at["ED"] == at["ES"]:
        raise PhaseError(f"ED and ES are both frame {at['ED']}", where, "correct the CSV")
    group = line.get("pathology") or NOT_SAID
    scans = {phase: _scan(image, mask, frame) for phase, frame in at.items()}
    vendor = line.get("vendorname") or line.get("vendor") or NOT_SAID
    return Study(group, vendor, line.get("centre") or NOT_SAID, scans)


def _scan(image: Path, mask: Path, frame: int) -> Scan:
    values, affine = read_voxels(image, frame=frame)
    stored, placed = read_voxels(mask, mask=True, frame=frame)
    return Scan(values, relabel(on_grid(stored, placed, values.shape, affine, str(mask)), LABELS), affine)
