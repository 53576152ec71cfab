"""Tiny archives of every kind, all of the same two phantoms, for tests of importers."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from dicom_files import T, X, Y, Z, stack
from numpy.typing import NDArray
from phantom_files import heart_mask, write_patient

from model.labels import LV, MYO, RV

SHAPE, SPACING_MM = (44, 40, 5), (1.6, 1.5, 8.0)
OBLIQUE = np.array([[-1.2, -0.5, 4.4, 60], [0.1, -1.2, -5.2, 80], [1.05, -0.75, 4.2, -40], [0, 0, 0, 1.0]])
CANARY = "DOE^JANE-19610203"
Files = dict[str, Path]


def frame(cavity_mm: float, seed: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Image and mask ``(X, Y, Z)`` of a phantom in our label order."""
    mask = heart_mask(SHAPE, SPACING_MM, cavity_mm)
    noise = np.random.default_rng(seed).integers(0, 40, SHAPE)
    return (np.array([60, 300, 140, 300])[mask] + noise).astype(np.int16), mask


def save(path: Path, values: NDArray[np.generic], affine: NDArray[np.float64] = OBLIQUE) -> Path:
    """A NIfTI file whose header tells a patient's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    image.header["descrip"], image.header["db_name"] = CANARY.encode(), CANARY[:17].encode()
    image.header["aux_file"] = CANARY.encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", CANARY.encode()))
    nib.save(image, path)
    return path


def acdc(root: Path) -> Path:
    """One ACDC patient whose folder's name is a patient's."""
    write_patient(root / CANARY, seed=1)
    return root


def mnms(root: Path) -> Path:
    """Two subjects, two vendors; ED is frame 0, ES frame 2 of 3."""
    (root).mkdir(parents=True)
    swap = np.array([0, 3, 2, 1], np.uint8)  # theirs: 1 LV, 2 MYO, 3 RV
    for seed, code in ((1, "A0S9V9"), (2, "B1C2D3")):
        phases = [frame(mm, seed) for mm in (12.0, 10.0, 8.0)]
        blank = np.zeros(SHAPE, np.uint8)
        masks = [swap[phases[0][1]], blank, swap[phases[2][1]]]
        save(root / code / f"{code}_sa.nii.gz", np.stack([p[0] for p in phases], -1))
        save(root / code / f"{code}_sa_gt.nii.gz", np.stack(masks, -1))
    rows = [
        "External code,VendorName,Vendor,Centre,ED,ES",
        "A0S9V9,Siemens,A,1,0,2",
        "B1C2D3,Philips,B,2,0,2",
    ]
    (root / "info.csv").write_text("\n".join([*rows, "Z9Z9Z9,GE,C,3,0,9", ""]))
    return root


def nifti(root: Path) -> Path:
    """One patient as nnU-Net keeps it: its own label values, named in ``dataset.json``."""
    swap = np.array([0, 7, 5, 2], np.uint8)
    for phase, mm in (("ED", 12.0), ("ES", 8.0)):
        image, mask = frame(mm, 3)
        save(root / "imagesTr" / f"heart1_{phase}_0000.nii.gz", image)
        save(root / "labelsTr" / f"heart1_{phase}.nii.gz", swap[mask])
    labels = {"background": 0, "LV cavity": 2, "Myocardium": 5, "RV": 7}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    return root


def dicom(root: Path) -> Path:
    """One patient with names all over the header, private tags and a mask per phase on flipped axes."""
    folder = root / CANARY
    folder.mkdir(parents=True)
    for index, ((t, _), data) in enumerate(stack().items()):
        data.PatientName, data.PatientID, data.StudyDate = CANARY, CANARY, "19990413"
        data.InstitutionName = data.OperatorsName = CANARY
        data.private_block(0x0099, "HOSPITAL X", create=True).add_new(1, "LO", CANARY)
        moved = np.frombuffer(data.PixelData, np.uint16) + 40 * t * t
        data.PixelData = moved.astype(np.uint16).tobytes()
        pydicom.dcmwrite(folder / f"{index}.dcm", data, enforce_file_format=True)
    for phase in ("ED", "ES"):
        add_dicom_mask(folder, phase)
    (root / "phases.csv").write_text(f"patient,ED,ES,group\n{CANARY},0,2,NOR\n")
    return root


def add_dicom_mask(folder: Path, phase: str) -> None:
    """A mask on the stack's grid, its axes as another program turns them."""
    from tasks.dicom.cine import read_cine

    mask = np.zeros((X, Y, Z), np.uint8)
    mask[4:12, 4:12, 1:4], mask[6:10, 6:10, 1:4], mask[13:16, 4:12, 1:4] = MYO, LV, RV
    affine = read_cine(folder).affine
    turn = np.array([[0, -1, 0, X - 1], [1, 0, 0, 0], [0, 0, -1, Z - 1], [0, 0, 0, 1.0]])
    save(folder / f"{phase}_mask.nii.gz", mask[::-1, :, ::-1].transpose(1, 0, 2), affine @ turn)


def sunnybrook(root: Path) -> Path:
    """One patient: ED is phase 3, ES phase 1, drawn on slices 1 to 3."""
    images, contours = root / "SCD01", root / "SCD01_contours"
    images.mkdir(parents=True)
    contours.mkdir()
    for data in stack().values():
        data.PatientName = CANARY
        pydicom.dcmwrite(images / f"{data.InstanceNumber}.dcm", data, enforce_file_format=True)
    for z in (1, 2, 3):
        for t, kind, low, high in ((3, "i", 4.5, 9.5), (3, "o", 2.5, 11.5), (1, "i", 5.5, 8.5)):
            path = contours / f"IM-0001-{z * T + t + 1:04d}-{kind}contour-manual.txt"
            path.write_text(f"{low} {low}\n{high} {low}\n{high} {high}\n{low} {high}\n")
    return root


MAKE = {"acdc": acdc, "mnms": mnms, "nifti": nifti, "dicom": dicom, "sunnybrook": sunnybrook}
