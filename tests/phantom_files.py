"""Tiny patients in ACDC layout, for tests that read files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from model.labels import LV, MYO, RV

SHAPE_XYZ = (44, 40, 5)
SPACING_XYZ_MM = (1.6, 1.5, 8.0)


def heart_mask(
    shape_xyz: tuple[int, int, int], spacing_mm: tuple[float, ...], cavity_mm: float
) -> NDArray[np.uint8]:
    """Concentric LV and myocardium with an RV beside them, in file axes; the last slice is empty."""
    x, y = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape_xyz[:2]), indexing="ij")
    x_mm, y_mm = x * spacing_mm[0], y * spacing_mm[1]
    from_lv, from_rv = np.hypot(x_mm, y_mm), np.hypot(x_mm - 16, y_mm - 2)
    plane = np.zeros(shape_xyz[:2], np.uint8)
    plane[from_rv < cavity_mm] = RV
    plane[from_lv < cavity_mm + 5] = MYO
    plane[from_lv < cavity_mm] = LV
    mask = np.repeat(plane[:, :, None], shape_xyz[2], axis=2)
    mask[:, :, -1] = 0
    return mask


def write_frame(
    stem: Path,
    cavity_mm: float,
    rng: np.random.Generator,
    affine: NDArray[np.float64],
    shape_xyz: tuple[int, int, int],
) -> None:
    """``<stem>.nii.gz`` and ``<stem>_gt.nii.gz``: bright blood, grey muscle, dark noise around."""
    spacing_mm = tuple(np.linalg.norm(affine[:3, :3], axis=0))
    mask = heart_mask(shape_xyz, spacing_mm, cavity_mm)
    image = np.array([60, 300, 140, 300])[mask] + rng.integers(0, 40, shape_xyz)
    nib.save(nib.Nifti1Image(image.astype(np.int16), affine), f"{stem}.nii.gz")
    nib.save(nib.Nifti1Image(mask, affine), f"{stem}_gt.nii.gz")


def write_patient(
    folder: Path,
    seed: int,
    group: str = "NOR",
    affine: NDArray[np.float64] | None = None,
    shape_xyz: tuple[int, int, int] = SHAPE_XYZ,
) -> Path:
    """One patient with ED = frame 1 and ES = frame 3; returns the folder."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    affine = (
        np.diag([-SPACING_XYZ_MM[0], -SPACING_XYZ_MM[1], SPACING_XYZ_MM[2], 1]) if affine is None else affine
    )
    for frame, cavity_mm in ((1, 12.0), (3, 8.0)):
        write_frame(folder / f"{folder.name}_frame{frame:02d}", cavity_mm, rng, affine, shape_xyz)
    (folder / "Info.cfg").write_text(
        f"ED: 1\nES: 3 \nGroup: {group}\nHeight: 170.0\nNbFrame: 5\nWeight: 70.0\n"
    )
    return folder


def write_group(root: Path, group: str, count: int, first: int) -> None:
    """``count`` patients of one group, numbered from ``first``."""
    for number in range(first, first + count):
        write_patient(root / f"patient{number:03d}", seed=number, group=group)


def overwrite_spacing(path: Path, step_mm: float) -> None:
    """Put a value into pixdim[1] of an uncompressed NIfTI-1 file, bytes and all."""
    overwrite_header(path, 80, struct.pack("<f", step_mm))


def overwrite_header(path: Path, offset: int, field: bytes) -> None:
    """Put bytes into a NIfTI-1 file, at an offset into its unpacked content."""
    packed = path.suffix == ".gz"
    data = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    data[offset : offset + len(field)] = field
    path.write_bytes(gzip.compress(bytes(data)) if packed else data)


def as_uncompressed(path: Path) -> Path:
    """Replace ``x.nii.gz`` by ``x.nii``."""
    plain = path.with_suffix("")
    nib.save(nib.load(path), plain)
    path.unlink()
    return plain
