"""What is to be segmented: a NIfTI file or a DICOM folder, read into native axes with the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from model.errors import GeometryError, IntensityError, UnreadableError
from model.geometry import Orientation, orientation_of
from tasks.cases import BROKEN_FILE, EXPORT_AGAIN, checked_affine, need_real_numbers
from tasks.dicom.cine import read_cine
from tasks.dicom.header import Header
from tasks.files import sha256_bytes, sha256_file

MASK_VALUES = 8
"""Values that a mask has at most, and an image in every slice more."""
FEWEST_SLICES = 3
Kind = Literal["nifti", "dicom"]


@dataclass(frozen=True)
class Study:
    """One patient's stack, still or moving.

    Attributes:
        kind: nifti or dicom.
        values: ``(T, Z, Y, X)`` float32 on the native grid; T is 1 for a still stack.
        spacing_mm: (z, y, x); z is the distance between slices, gap included.
        orientation: between native axes and the stored ones, which are (x, y, z) for DICOM.
        affine: ``(4, 4)``, stored voxel indices to RAS+ mm.
        shape: of the stored array; for DICOM (x, y, z, t).
        sha256: of the file; of the names-free hashes of all files for DICOM.
        header: of the NIfTI file; None for DICOM.
        headers: ``[t][z]`` of the DICOM images, in stored order; empty for NIfTI.
    """

    kind: Kind
    values: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]
    orientation: Orientation
    affine: NDArray[np.float64]
    shape: tuple[int, ...]
    sha256: str
    header: Any
    headers: tuple[tuple[Header, ...], ...]

    def to_stored(self, masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring masks ``(T, Z, Y, X)`` to the stored axes and shape, voxel for voxel."""
        phases = [self.orientation.to_file(mask) for mask in masks]
        return np.ascontiguousarray(np.stack(phases, axis=-1).reshape(self.shape))


def read_study(path: Path) -> Study:
    """Read what is to be segmented.

    Args:
        path: a NIfTI file with three axes, or four with time last; or a folder with a DICOM short-axis cine.

    Returns:
        The stack on its native grid.

    Raises:
        UnreadableError: no such path, or damaged.
        GeometryError: neither 3-D nor 4-D, fewer than three slices, spacing missing, or no short axis.
        IntensityError: a mask instead of an image, constant, or not finite.
        PhaseError: phases that cannot be ordered.
    """
    if not path.exists():
        raise UnreadableError("there is no such file or folder", str(path), "check the path")
    study = _read_dicom(path) if path.is_dir() else _read_nifti(path)
    _check(study, path)
    return study


def _read_nifti(path: Path) -> Study:
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise ImageFileError(f"{type(image).__name__} instead of NIfTI")
        _need_axes(image.shape, path)
        affine = checked_affine(image, path, len(image.shape))
        need_real_numbers(image.get_data_dtype(), False, path)
        stored = image.get_fdata(dtype=np.float32, caching="unchanged")
    except BROKEN_FILE as e:
        raise UnreadableError(f"cannot be read: {' '.join(str(e).split())}", str(path), EXPORT_AGAIN) from e
    return _study("nifti", stored, affine, image.shape, sha256_file(path), image.header, ())


def _read_dicom(folder: Path) -> Study:
    cine = read_cine(folder)
    stored = cine.values.transpose(3, 2, 1, 0)
    files = sorted({path for phase in cine.files for path in phase})
    sha256 = sha256_bytes("".join(sorted(map(sha256_file, files))).encode())
    return _study("dicom", stored, cine.affine, stored.shape, sha256, None, cine.headers)


def _study(
    kind: Kind,
    stored: NDArray[np.float32],
    affine: NDArray[np.float64],
    shape: Sequence[int],
    sha256: str,
    header: Any,
    headers: tuple[tuple[Header, ...], ...],
) -> Study:
    orientation = orientation_of(affine)
    z, y, x = (float(np.linalg.norm(affine[:3, axis])) for axis in orientation.axes)
    moving = stored.reshape(*stored.shape[:3], -1)
    values = np.stack([orientation.to_native(moving[..., t]) for t in range(moving.shape[3])])
    return Study(
        kind, values, (z, y, x), orientation, affine, tuple(map(int, shape)), sha256, header, headers
    )


def _need_axes(shape: Sequence[int], path: Path) -> None:
    if len(shape) not in (3, 4):
        mend = "give a stack of slices (3-D) or a cine of stacks (4-D, time last)"
        raise GeometryError(f"has {len(shape)} axes, shape {tuple(shape)}, not 3 or 4", str(path), mend)


def _check(study: Study, path: Path) -> None:
    depth = study.values.shape[1]
    if depth < FEWEST_SLICES:
        said = f"{depth} slices; a stack has {FEWEST_SLICES} or more"
        raise GeometryError(said, str(path), "give the file with the whole stack")
    if not np.isfinite(study.values).all():
        raise IntensityError("holds NaN or infinite voxels", str(path), EXPORT_AGAIN)
    values = np.unique(study.values[0])
    if len(values) == 1:
        raise IntensityError(f"is constant, every voxel is {values[0]:g}", str(path), EXPORT_AGAIN)
    if len(values) <= MASK_VALUES:
        said = f"holds {len(values)} values only, {values[:4].tolist()} …: a mask, not an image"
        raise IntensityError(said, str(path), "give the image")
