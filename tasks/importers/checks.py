"""What may be wrong with a patient's files, whatever archive they came from; every fault is named at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from model.errors import DataError, GeometryError, IntensityError, LabelError, PhaseError
from model.labels import LV, MYO, N_CLASSES, UNKNOWN
from tasks.cases import EXPORT_AGAIN, Frame, Patient, Volume, read_volume

APART_MM = 0.5
"""How far an image's and its mask's corners may lie apart before they are two grids."""


def faults_of(patient: Patient) -> Iterator[DataError]:
    """Everything wrong with a patient's files: geometry, intensities, labels, phases."""
    images = []
    for phase, frame in patient.frames.items():
        faults: list[DataError] = []
        image, mask = _try_read(frame.image, False, faults), _try_read(frame.mask, True, faults)
        yield from faults
        if image:
            images.append(image)
            yield from _image_faults(image, frame.image)
        if mask:
            yield from _mask_faults(mask, phase, frame)
        if image and mask:
            yield from _grid_faults(image, mask, frame)
    if len(images) == 2:
        yield from _phase_faults(images[0], images[1], patient)


def _try_read(path: Path, mask: bool, faults: list[DataError]) -> Volume | None:
    try:
        return read_volume(path, mask)
    except DataError as fault:
        faults.append(type(fault)(fault.what, str(path), fault.mend))
        return None


def _image_faults(image: Volume, path: Path) -> Iterator[DataError]:
    unusable = int(np.count_nonzero(~np.isfinite(image.values)))
    if unusable:
        yield IntensityError(f"holds {unusable} NaN or infinite voxels", str(path), EXPORT_AGAIN)
    elif image.values.min() == image.values.max():
        yield IntensityError(f"is constant, every voxel is {image.values.flat[0]:g}", str(path), EXPORT_AGAIN)


def _mask_faults(mask: Volume, phase: str, frame: Frame) -> Iterator[DataError]:
    path, values = frame.mask, np.unique(mask.values)
    allowed = {0, *frame.labels} | ({UNKNOWN} if frame.holes else set())
    strange = [float(value) for value in values if value not in allowed]
    if any(value != round(value) if np.isfinite(value) else True for value in strange):
        yield LabelError(
            f"holds {strange[:3]}, which are not integers", str(path), "resample masks by nearest voxel"
        )
    elif strange:
        yield LabelError(
            f"holds labels {strange[:5]} outside 0…{N_CLASSES - 1}", str(path), "map to 1 RV, 2 MYO, 3 LV"
        )
    else:
        yield from _unmarked(set(values.tolist()), phase, frame)


def _unmarked(labels: set[float], phase: str, frame: Frame) -> Iterator[DataError]:
    """A mask without a heart would teach that everything is background; only the RV may be absent at ED."""
    needed = {"MYO": MYO, "LV": LV} if phase == "ED" else {}
    absent = [name for name, label in needed.items() if label not in labels and label in frame.labels]
    if frame.labels and not labels - {0, UNKNOWN}:
        said = f"is an {phase} mask that marks nothing, every voxel is background"
    elif absent:
        said = f"is an ED mask that marks no {' and no '.join(absent)}"
    else:
        return
    yield LabelError(said, str(frame.mask), "complete the annotation, or take the patient out")


def _grid_faults(image: Volume, mask: Volume, frame: Frame) -> Iterator[DataError]:
    mend = "write the mask with its image's own header"
    if image.values.shape != mask.values.shape:
        shapes = f"{mask.values.shape} voxels, its image {image.values.shape}"
        yield GeometryError(f"has (Z, Y, X) = {shapes}", str(frame.mask), mend)
        return
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(image.orientation.to_file(image.values).shape) - 1)
    moved = np.c_[corners, np.ones(8)] @ (image.affine - mask.affine).T
    apart_mm = float(np.linalg.norm(moved[:, :3], axis=1).max())
    if apart_mm > APART_MM:
        yield GeometryError(f"has an affine {apart_mm:.1f} mm away from its image's", str(frame.mask), mend)


def _phase_faults(ed: Volume, es: Volume, patient: Patient) -> Iterator[DataError]:
    where = str(patient.folder)
    same_spacing = np.allclose(ed.spacing_mm, es.spacing_mm, rtol=1e-3)
    if ed.values.shape != es.values.shape or not same_spacing or ed.orientation != es.orientation:
        yield GeometryError("ED and ES lie on different grids", where, "export both from one cine series")
    elif np.array_equal(ed.values, es.values):
        yield PhaseError("ED and ES are the same picture", where, "restore the ES frame")


def raise_all(faults: Sequence[DataError], root: Path) -> None:
    """Raise one error with a line for every fault; nothing when there is none."""
    if not faults:
        return
    if len(faults) == 1:
        raise faults[0]
    kinds = {type(fault) for fault in faults}
    lines = [f"{fault.where}: {fault.what} → {fault.mend}" for fault in faults]
    kind = kinds.pop() if len(kinds) == 1 else DataError
    raise kind(f"{len(faults)} faults\n    " + "\n    ".join(lines), str(root), "mend every line above")
