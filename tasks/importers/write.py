"""A site's own copy of an archive: de-identified, in one layout, in the federation's label order.

``OUT/<id>/ED.nii.gz``, ``ED_mask.nii.gz``, ``ES.nii.gz``, ``ES_mask.nii.gz`` and ``OUT/cases.csv``. Files are written
from voxels and affine alone, so that nothing else of the archive can survive in them.
"""

from __future__ import annotations

import csv
import gzip
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from model.errors import CohortError, ConfigError, DataError, DiskError, GeometryError
from tasks.cases import CASES_FILE, Frame, Patient, label_names, read_volume
from tasks.importers.canonical import COLUMNS, PHASES
from tasks.importers.checks import faults_of, raise_all
from tasks.importers.found import Found, Importer, Scan, Study
from tasks.importers.pseudonyms import keep_map, pseudonym, site_key
from tasks.importers.vendors import short_word, vendor_name
from tasks.sites import safe_name

PRIVATE = "private"
Line = dict[str, str]


@dataclass(frozen=True)
class Imported:
    """What an import brought.

    Attributes:
        patients: how many.
        rows: of the case table.
        risks: id → what may identify the patient still, or was hidden in the files.
        private: where key and map of the pseudonyms stay.
    """

    patients: int
    rows: tuple[Line, ...]
    risks: dict[str, tuple[str, ...]]
    private: Path


def import_site(
    importer: Importer,
    source: Path,
    site: str,
    out: Path,
    private: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Imported:
    """Write the site's de-identified copy of an archive: whole, or not at all.

    Args:
        importer: of the archive's kind.
        source: the archive; it is read and stays as it is.
        site: name for the table.
        out: new folder, or one that an import of this site has written, which is replaced.
        private: where key and map stay, 0600; ``<out>-private`` when left out.
        tell: hears a line per patient.

    Returns:
        The table and the risks.

    Raises:
        DataError: of the kind of the fault; several in one error, a line each.
        KeyFileError: the site's key is open to others or damaged.
        ConfigError: ``out`` holds something else or another site's import, or ``private`` lies in it.
        DiskError: a file could not be written.
    """
    site, private = safe_name(site), private or out.with_name(f"{out.name}-{PRIVATE}")
    _refuse_foreign(out, site)
    if private.resolve().is_relative_to(out.resolve()):
        raise ConfigError("key and map would lie in the copy", str(private), "name a folder outside it")
    found = importer(source)
    if not found:
        raise CohortError("no patient found", str(source), "check the folder and the kind of archive")
    key = site_key(private)
    ids = {each.name: pseudonym(key, each.name) for each in found}
    if len(ids) < len(found):
        raise CohortError("one patient stands twice", str(source), "remove one of the two")
    faults: list[DataError] = []
    rows: list[Line] = []
    risks: dict[str, tuple[str, ...]] = {}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as staging:
        fresh = Path(staging) / "out"
        for each in sorted(found, key=lambda one: ids[one.name]):
            tell(ids[each.name])
            try:
                study = each.read()
                rows += _write(study, site, ids[each.name], fresh)
                risks |= {ids[each.name]: study.risks} if study.risks else {}
            except DataError as fault:
                faults.append(type(fault)(fault.what, fault.where or str(each.where), fault.mend))
                continue
            faults += _faults(fresh / ids[each.name], study, each)
        raise_all(faults, source)
        _write_table(fresh / CASES_FILE, rows)
        keep_map(private, {ids[each.name]: (each.name, each.where) for each in found})
        _put_in_place(fresh, out)
    return Imported(len(found), tuple(rows), risks, private)


def nifti_bytes(values: NDArray[Any], affine: NDArray[Any]) -> bytes:
    """A ``.nii.gz`` of voxels and affine: no words, no extension, no time; equal arrays give equal bytes."""
    image = nib.Nifti1Image(_small(values), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner", strip_shears=True)
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)


def _small(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers as int16 where they fit, masks as they are, else float32."""
    if values.dtype == np.uint8:
        return values
    whole = np.isfinite(values).all() and np.array_equal(values, np.round(values))
    fits = whole and values.size and np.abs(values).max() <= np.iinfo(np.int16).max
    return values.astype(np.int16 if fits else np.float32)


def _write(study: Study, site: str, patient: str, root: Path) -> list[Line]:
    rows = []
    for phase in PHASES:
        scan, names = study.scans[phase], (f"{patient}/{phase}.nii.gz", f"{patient}/{phase}_mask.nii.gz")
        _need_one_grid(scan)
        _save(root / names[0], nifti_bytes(np.asarray(scan.image), scan.affine))
        _save(root / names[1], nifti_bytes(_as_labels(scan.mask), scan.affine))
        spacing_mm = read_volume(root / names[0]).spacing_mm
        said = (
            *(patient, site, phase, *(f"{step:.6g}" for step in spacing_mm)),
            *(vendor_name(study.vendor), short_word(study.centre), short_word(study.group)),
            *(label_names(scan.labels), *names),
        )
        rows.append(dict(zip(COLUMNS, said, strict=True)))
    return rows


def _need_one_grid(scan: Scan) -> None:
    if scan.image.shape != scan.mask.shape:
        said = f"the mask has {scan.mask.shape} voxels (x, y, z), its image {scan.image.shape}"
        raise GeometryError(said, mend="write the mask on its image's grid")


def _as_labels(mask: NDArray[Any]) -> NDArray[Any]:
    """As uint8 where that is exact; left as it is otherwise, for the checks to name what is wrong."""
    small = np.asarray(mask).astype(np.uint8, casting="unsafe") if np.isfinite(mask).all() else mask
    return small if np.array_equal(small, mask) else np.asarray(mask, np.float32)


def _faults(folder: Path, study: Study, found: Found) -> list[DataError]:
    """What is wrong with the copy, said of the original."""
    frames = (
        Frame(folder / f"{phase}.nii.gz", folder / f"{phase}_mask.nii.gz", study.scans[phase].labels, True)
        for phase in PHASES
    )
    patient = Patient(folder.name, study.group, study.vendor, study.centre, *frames)
    return [
        type(fault)(f"{Path(fault.where).name.split('.')[0]} {fault.what}", str(found.where), fault.mend)
        for fault in faults_of(patient)
    ]


def _refuse_foreign(out: Path, site: str) -> None:
    mend = "name a new folder for the import"
    if out.exists() and not out.is_dir():
        raise ConfigError("it is a file", str(out), mend)
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        with (out / CASES_FILE).open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            sites = {line["site"] for line in table} if tuple(table.fieldnames or ()) == COLUMNS else None
    except OSError:
        sites = None
    if sites is None:
        raise ConfigError("the folder holds something else", str(out), mend)
    if sites - {site}:
        said = f"the folder holds the import of site '{min(sites)}', this is '{site}'"
        raise ConfigError(said, str(out), mend)


def _write_table(path: Path, rows: list[Line]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _save(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise DiskError(f"could not be written: {error.strerror}", str(path.parent), "free space") from error


def _put_in_place(fresh: Path, out: Path) -> None:
    if out.exists():
        old = fresh.with_name("old")
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(fresh.with_name("old"), ignore_errors=True)
