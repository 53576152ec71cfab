"""Hospitals whose patients, folders, files, series and pixels are all marked, and what the marks look like as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from federation_files import PATIENTS, SITES
from numpy.typing import NDArray
from phantom_files import SHAPE_XYZ, SPACING_XYZ_MM, heart_mask

WORDS = {
    "folder of all data": "Kanarienhaus-3391",
    "patient": "Zeisigmann-Fridolin",
    "number": "PID77415518",
    "file": "girlitz-acq88",
    "series": "SAX-STIEGLITZ-CINE-4407",
    "physician": "Drv-Gimpelhuber",
    "trace": "Kernbeisser-at-0xFEED5EED",
}
RUN = 16
"""Pixels in a row that count as a piece of an image."""


def write_hospitals(root: Path) -> Path:
    """Three hospitals as folders of a data set in ACDC's layout; returns it."""
    data = root / WORDS["folder of all data"]
    for i, (site, count) in enumerate(zip(SITES, PATIENTS, strict=True)):
        for k in range(count):
            _write_patient(data / site / f"{WORDS['patient']}-{WORDS['number']}{i}{k}", 100 + 10 * i + k)
    return data


def _write_patient(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for frame, cavity_mm in ((1, 12.0), (3, 8.0)):
        _write_frame(folder / f"{WORDS['file']}_frame{frame:02d}", cavity_mm, rng)
    about = f"ED: 1\nES: 3\nGroup: NOR\nName: {WORDS['patient']}\nPhysician: {WORDS['physician']}\n"
    (folder / "Info.cfg").write_text(about)


def _write_frame(stem: Path, cavity_mm: float, rng: np.random.Generator) -> None:
    mask = heart_mask(SHAPE_XYZ, SPACING_XYZ_MM, cavity_mm)
    pixels = np.array([60, 300, 140, 300])[mask] + rng.integers(0, 40, SHAPE_XYZ)
    affine = np.diag([-SPACING_XYZ_MM[0], -SPACING_XYZ_MM[1], SPACING_XYZ_MM[2], 1])
    image = nib.Nifti1Image(pixels.astype(np.int16), affine)
    image.header["descrip"] = WORDS["series"]
    image.header["aux_file"] = WORDS["physician"]
    image.header["db_name"] = WORDS["number"]
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", WORDS["patient"].encode()))
    nib.save(image, f"{stem}.nii.gz")
    nib.save(nib.Nifti1Image(mask, affine), f"{stem}_gt.nii.gz")


def marks(data: Path, cohort: Path) -> dict[str, bytes]:
    """Name → bytes of everything that must stay at a hospital.

    Args:
        data: as :func:`write_hospitals` returned it.
        cohort: what was prepared of it, as the network sees it.
    """
    found = marks_of_cohort(cohort)
    for path in sorted(data.glob(f"*/*/{WORDS['file']}_frame??.nii.gz")):
        rows = np.asarray(nib.load(path).dataobj)[14:30, 20, ::2].T
        found |= pieces(f"image {path.parent.name[-2:]}", rows)
    return found


def marks_of_cohort(cohort: Path) -> dict[str, bytes]:
    """Name → bytes of all words, and of the slices as the network sees them."""
    found = {f"word: {name}": word.encode() for name, word in WORDS.items()}
    for path in sorted(cohort.glob("*/*.npz")):
        with np.load(path) as stored:
            rows = stored["images"][::3, stored["images"].shape[1] // 2, 8 : 8 + RUN]
        found |= pieces(f"slice {path.parent.name} {path.stem}", rows)
    return found


def pieces(name: str, rows: NDArray[np.generic]) -> dict[str, bytes]:
    """Marks of rows of :data:`RUN` pixels, in every form that somebody may store them in."""
    return {f"{name} {k} {form}": piece for k, row in enumerate(rows) for form, piece in _forms(row)}


def _forms(row: NDArray[np.generic]) -> Iterator[tuple[str, bytes]]:
    """A row of pixels in the numbers that somebody may store or print it in; flat rows mark nothing."""
    assert row.shape == (RUN,)
    if len(np.unique(row)) < RUN // 2:
        return
    yield from ((f"text {sign!r}", sign.join(map(str, row.tolist())).encode()) for sign in (",", ", ", " "))
    if np.issubdtype(row.dtype, np.integer):
        yield from ((form, row.astype(form).tobytes()) for form in ("<u2", ">u2", "<f4", "<f8", "u1"))
        return
    grey = (row - row.min()) / (row.max() - row.min()) * 255
    yield from ((form, row.astype(form).tobytes()) for form in ("<f4", "<f2", "<f8"))
    yield "u1", grey.round().astype("u1").tobytes()
