"""DICOM cines for tests, written by pydicom: a short-axis stack whose every voxel says where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

T, Z, Y, X = 4, 5, 16, 20
NORMAL = np.array([-0.65, 0.6, 0.45]) / np.linalg.norm([-0.65, 0.6, 0.45])
ROW = np.cross([0, 0, 1.0], NORMAL) / np.linalg.norm(np.cross([0, 0, 1.0], NORMAL))
COLUMN = np.cross(NORMAL, ROW)
STEP_MM = 10.0


def stored(t: int, z: int) -> Any:
    """Pixels of one image, no two alike."""
    return (np.arange(Y * X).reshape(Y, X) + 1000 * t + 5000 * z).astype(np.uint16)


def image(t: int, z: int, series: str = "1.2.3") -> Dataset:
    """One image of the stack; SliceThickness lies on purpose."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, "1.2", "1.5"
    data.Modality, data.Manufacturer, data.SeriesDescription = "MR", "ACME", "cine sax"
    data.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    data.PatientID, data.InstanceNumber, data.TriggerTime = "anon", z * T + t + 1, 40.0 * t
    data.ImageOrientationPatient = [f"{each:.10f}" for each in (*ROW, *COLUMN)]
    data.ImagePositionPatient = [f"{each:.6f}" for each in (NORMAL * STEP_MM * z + [7, -3, 11])]
    data.PixelSpacing, data.SliceThickness = [1.5, 1.25], 3
    data.Rows, data.Columns, data.SamplesPerPixel = Y, X, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.PixelData = stored(t, z).tobytes()
    return data


def stack() -> dict[tuple[int, int], Dataset]:
    """All images by (t, z)."""
    return {(t, z): image(t, z) for t in range(T) for z in range(Z)}


def write(folder: Path, images: list[Dataset]) -> Path:
    """Write under names that sort against place and time."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(images):
        name = f"{len(images) - index:04d}.dcm"
        pydicom.dcmwrite(folder / name, data, enforce_file_format=True)
    return folder


def enhanced() -> Dataset:
    """The same stack as one enhanced file, frames shuffled."""
    data = image(0, 0)
    order = [(t, z) for t in reversed(range(T)) for z in range(Z)]
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "TriggerTime"):
        delattr(data, name)
    groups = []
    for t, z in order:
        one, place, heart = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = image(t, z).ImagePositionPatient
        heart.NominalCardiacTriggerDelayTime = 40.0 * t
        one.PlanePositionSequence, one.CardiacSynchronizationSequence = [place], [heart]
        groups.append(one)
    shared, plane, size = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient, size.PixelSpacing = image(0, 0).ImageOrientationPatient, [1.5, 1.25]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [size]
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], groups
    data.NumberOfFrames = len(order)
    data.PixelData = b"".join(stored(t, z).tobytes() for t, z in order)
    return data
