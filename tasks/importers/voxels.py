"""Voxels and affine of NIfTI files along their own axes: a volume, or one frame of a cine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from model.errors import GeometryError, PairError, UnreadableError
from tasks.cases import BROKEN_FILE, EXPORT_AGAIN, checked_affine, need_real_numbers

APART_MM = 0.5
Voxels = tuple[NDArray[Any], NDArray[np.float64]]


def read_voxels(path: Path, mask: bool = False, frame: int | None = None) -> Voxels:
    """Read a NIfTI file.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        mask: keep the stored values instead of float32.
        frame: of a 4-D file; None for a 3-D one.

    Returns:
        ``(X, Y, Z)`` values, and the affine to RAS+ mm.

    Raises:
        PairError: there is no such file.
        UnreadableError: it is cut short or not NIfTI.
        GeometryError: other axes, or spacing missing, implausible or contradictory.
        IntensityError, LabelError: an image's, a mask's voxels are not one real number each.
    """
    if not path.exists():
        raise PairError(
            f"there is no {path.name}", str(path.parent), "bring it back, or take the patient out"
        )
    try:
        image = _open(path)
        affine = checked_affine(image, path, 3 if frame is None else 4)
        need_real_numbers(image.get_data_dtype(), mask, path)
        part = image.dataobj if frame is None else image.dataobj[..., frame]
        values = np.asanyarray(part) if mask else np.asarray(part, np.float32)
    except BROKEN_FILE as error:
        said = f"cannot be read: {' '.join(str(error).split())}"
        raise UnreadableError(said, str(path), EXPORT_AGAIN) from error
    return values, affine


def frame_count(path: Path) -> int:
    """Frames of a 4-D file, 1 of a 3-D one.

    Args:
        path: a NIfTI file; only its header is read.

    Returns:
        At least 1.

    Raises:
        UnreadableError: it cannot be read.
    """
    try:
        shape = _open(path).shape
    except BROKEN_FILE as error:
        said = f"cannot be read: {' '.join(str(error).split())}"
        raise UnreadableError(said, str(path), EXPORT_AGAIN) from error
    return int(shape[3]) if len(shape) > 3 else 1


def on_grid(
    mask: NDArray[Any], affine: NDArray[Any], shape: tuple[int, ...], wanted: NDArray[Any], where: str
) -> NDArray[Any]:
    """Turn a mask's axes until they are its image's; voxels are copied, never interpolated.

    Args:
        mask: ``(X, Y, Z)`` along its own axes.
        affine: of the mask.
        shape: of the image.
        wanted: affine of the image.
        where: the mask's file, for the error.

    Returns:
        The mask with the image's shape and axes.

    Raises:
        GeometryError: it lies on another grid.
    """
    between = np.linalg.inv(wanted) @ affine
    turn = io_orientation(between)
    mend = "draw or resample the mask on its image's grid"
    if np.isnan(turn).any():
        raise GeometryError("the mask's axes are not its image's", where, mend)
    turned = np.asarray(apply_orientation(mask, turn))
    if turned.shape != tuple(shape):
        raise GeometryError(f"the mask has {turned.shape} voxels, its image {tuple(shape)}", where, mend)
    placed = affine @ inv_ornt_aff(turn, mask.shape)
    corners = np.c_[np.array([*np.ndindex(2, 2, 2)]) * (np.array(shape) - 1), np.ones(8)]
    apart_mm = float(np.linalg.norm((corners @ (placed - wanted).T)[:, :3], axis=1).max())
    if apart_mm > APART_MM:
        raise GeometryError(f"the mask lies {apart_mm:.1f} mm away from its image", where, mend)
    return turned


def _open(path: Path) -> Any:
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image):
        raise ImageFileError(f"{type(image).__name__} instead of NIfTI")
    return image
