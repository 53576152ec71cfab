"""DICOM exports of hospitals, marked in headers, private tags, pixels, folders and files; and their import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from dicom_files import T, Z, image
from federation_files import PATIENTS, SITES
from hospitals import WORDS, pieces
from numpy.typing import NDArray
from phantom_files import heart_mask
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from flows.data_cli import data_app
from tasks.dicom.cine import read_cine

KINDS = dict(zip(SITES, ("dicom", "sunnybrook", "dicom"), strict=True))
SIDE, SPACING_MM = 40, (1.25, 1.5, 10.0)
ED, ES = 3, 1  # Sunnybrook's are where its readers drew
CAVITY_MM = {0: 10.0, ES: 8.0, 2: 10.0, ED: 12.0}
TAGS = {
    "PatientName": WORDS["patient"],
    "PatientID": WORDS["number"],
    "SeriesDescription": WORDS["series"],
    "StudyDescription": "Verdacht-auf-Zaunkoenig-212",
    "InstitutionName": "Klinik-am-Rotkehlchenpark",
    "StationName": "WENDEHALS-3T",
    "ReferringPhysicianName": WORDS["physician"],
    "OtherPatientIDs": "AltPID-Pirol-90210",
    "ImageComments": "kommt-mit-Eisvogel-Husten",
}
PRIVATE = {"creator": "UHU-RESEARCH-77", "value": "privat-Schleiereule-5150"}
TAG_WORDS = {f"word: {name}": word.encode() for name, word in {**TAGS, **PRIVATE}.items()}


def write_archives(root: Path) -> dict[str, Path]:
    """What each hospital's archive has exported; site → folder, of the kind in :data:`KINDS`."""
    exports = {site: root / WORDS["folder of all data"] / f"export-{site}" for site in SITES}
    for i, (site, count) in enumerate(zip(SITES, PATIENTS, strict=True)):
        for k in range(count):
            name = f"{WORDS['patient']}-{WORDS['number']}{i}{k}"
            folder = exports[site] / name
            masks = KINDS[site] == "dicom"
            _write_cine(folder, f"{WORDS['file']}-{{:04d}}.dcm" if masks else "{}.dcm", 300 + 10 * i + k)
            if masks:
                _write_masks(folder)
            else:
                _write_contours(exports[site] / f"{name}_contours")
        if KINDS[site] == "dicom":
            rows = [f"{path.name},{ED},{ES}" for path in sorted(exports[site].iterdir())]
            (exports[site] / "phases.csv").write_text("\n".join(["patient,ED,ES", *rows, ""]))
    return exports


def bring_in(exports: dict[str, Path]) -> Path:
    """Have every hospital import its archive as its people do; the folder of all imports, one per site."""
    home = next(iter(exports.values())).parent / "imports"
    for site, export in exports.items():
        command = ["import", KINDS[site], str(export), "--site", site, "--out", str(home / site)]
        private = ["--private", str(home.with_name("private") / site)]
        done = CliRunner().invoke(data_app, [*command, *private])
        assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    return home


def marks_of(exports: dict[str, Path]) -> dict[str, bytes]:
    """Name → bytes of what the archives hold."""
    found = dict(TAG_WORDS)
    for site, export in exports.items():
        for path in sorted(export.rglob("*.dcm"))[::7]:
            pixels = pydicom.dcmread(path).pixel_array
            found |= pieces(f"dicom {site} {path.parent.name[-2:]} {path.stem[-4:]}", pixels[14:30:4, 12:28])
    return found


def _write_cine(folder: Path, name: str, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for t in range(T):
        pixels = _pixels(CAVITY_MM[t], rng)
        for z in range(Z):
            data = _marked(image(t, z))
            data.Rows = data.Columns = SIDE
            data.PixelSpacing = [SPACING_MM[1], SPACING_MM[0]]
            data.PixelData = pixels[z].tobytes()
            pydicom.dcmwrite(folder / name.format(data.InstanceNumber), data, enforce_file_format=True)


def _marked(data: Dataset) -> Dataset:
    for tag, word in TAGS.items():
        setattr(data, tag, word)
    data.private_block(0x0099, PRIVATE["creator"], create=True).add_new(1, "LO", PRIVATE["value"])
    return data


def _pixels(cavity_mm: float, rng: np.random.Generator) -> NDArray[np.uint16]:
    """``(Z, Y, X)``, no row like another."""
    mask = _mask(cavity_mm).transpose(2, 1, 0)
    return (np.array([60, 300, 140, 300])[mask] + rng.integers(0, 40, mask.shape)).astype(np.uint16)


def _mask(cavity_mm: float) -> NDArray[np.uint8]:
    return heart_mask((SIDE, SIDE, Z), SPACING_MM, cavity_mm)


def _write_masks(folder: Path) -> None:
    affine = read_cine(folder).affine
    for phase, t in (("ED", ED), ("ES", ES)):
        drawn = nib.Nifti1Image(_mask(CAVITY_MM[t]), affine)
        drawn.header["descrip"] = WORDS["series"]
        nib.save(drawn, folder / f"{phase}_mask.nii.gz")


def _write_contours(folder: Path) -> None:
    folder.mkdir(parents=True)
    for z in range(Z - 1):
        for t, kind, radius_mm in (
            (ED, "i", CAVITY_MM[ED]),
            (ED, "o", CAVITY_MM[ED] + 5),
            (ES, "i", CAVITY_MM[ES]),
        ):
            path = folder / f"IM-0001-{z * T + t + 1:04d}-{kind}contour-manual.txt"
            path.write_text("".join(f"{x:.2f} {y:.2f}\n" for x, y in _circle(radius_mm)))


def _circle(radius_mm: float) -> Iterator[tuple[float, float]]:
    for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        yield (
            (SIDE - 1) / 2 + radius_mm / SPACING_MM[0] * np.cos(angle),
            (SIDE - 1) / 2 + radius_mm / SPACING_MM[1] * np.sin(angle),
        )
