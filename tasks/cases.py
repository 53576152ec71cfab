"""A site's cases: the records that name them, the table that lists them, the volumes its rows point to."""

from __future__ import annotations

import csv
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model.errors import GeometryError, IntensityError, LabelError, UnreadableError
from model.geometry import Crop, Orientation, orientation_of
from model.labels import STRUCTURES

CASES_FILE, CARD_FILE = "cases.csv", "card.json"
ALL_LABELS = frozenset(STRUCTURES.values())
SPACING_MM = (0.2, 50.0)
"""What a voxel of a cine stack can measure; outside it the unit is wrong."""
BROKEN_FILE = (
    *(OSError, EOFError, ValueError, TypeError, OverflowError, MemoryError),
    *(zlib.error, ImageFileError, HeaderDataError),
)
"""What nibabel raises for damaged files, sizes that no machine can hold included."""
EXPORT_AGAIN = "export the series again from the original images"


@dataclass(frozen=True)
class Frame:
    """One cardiac phase: the image file and its mask file.

    Attributes:
        image, mask: NIfTI files on one grid.
        labels: structures that were annotated; of the others the mask says nothing, not even that they are absent.
        holes: whether voxels may be 255, which nobody annotated.
    """

    image: Path
    mask: Path
    labels: frozenset[int] = ALL_LABELS
    holes: bool = False


@dataclass(frozen=True)
class Patient:
    """One patient as an importer found them; ``folder_id`` never leaves the site."""

    folder_id: str
    group: str
    vendor: str
    centre: str
    ed: Frame
    es: Frame

    @property
    def frames(self) -> dict[str, Frame]:
        """Both phases by name."""
        return {"ED": self.ed, "ES": self.es}

    @property
    def folder(self) -> Path:
        """The folder that holds all of this patient's files."""
        return self.ed.image.parent


@dataclass(frozen=True)
class Volume:
    """A NIfTI file as ``(Z, Y, X)``, and what leads back to the file's own axes.

    Attributes:
        values: ``(Z, Y, X)`` native voxels; float32 for images, the file's dtype for masks.
        spacing_mm: (z, y, x).
        orientation: between the file's axes and native ones.
        affine: ``(4, 4)`` of the file.
    """

    values: NDArray[Any]
    spacing_mm: tuple[float, float, float]
    orientation: Orientation
    affine: NDArray[np.float64]


def label_names(labels: frozenset[int]) -> str:
    """Annotated structures as a table writes them, such as ``RV MYO LV``; empty for none."""
    return " ".join(name for name, label in STRUCTURES.items() if label in labels)


def labels_named(text: str) -> frozenset[int]:
    """The inverse of :func:`label_names`.

    Args:
        text: names of structures, blanks between them.

    Returns:
        Their labels.

    Raises:
        ValueError: a word is no structure.
    """
    if unknown := set(text.split()) - STRUCTURES.keys():
        raise ValueError(f"{sorted(unknown)} are no structures")
    return frozenset(STRUCTURES[name] for name in text.split())


@dataclass(frozen=True)
class CaseRow:
    """One row of ``cases.csv``: one patient, one phase."""

    patient: str
    phase: str
    group: str
    split: str
    image: str
    mask: str
    spacing_z_mm: float
    spacing_y_mm: float
    spacing_x_mm: float
    centre_y_px: float
    centre_x_px: float
    crop_px: int
    crop_spacing_mm: float
    vendor: str
    centre: str
    labels: str = label_names(ALL_LABELS)

    @property
    def annotated(self) -> frozenset[int]:
        """The structures that the mask speaks of."""
        return labels_named(self.labels)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(z, y, x)."""
        return self.spacing_z_mm, self.spacing_y_mm, self.spacing_x_mm

    def crop(self, native_shape: Sequence[int]) -> Crop:
        """The map to the network's grid for slices of ``(Y, X)`` = the last two of ``native_shape``."""
        y, x = native_shape[-2:]
        centre_px, spacing_mm = (self.centre_y_px, self.centre_x_px), self.spacing_mm[1:]
        return Crop(self.crop_px, self.crop_spacing_mm, centre_px, (y, x), spacing_mm)


class SiteCard(BaseModel):
    """What a site tells about its data: counts and ranges, no names of files or patients.

    The one in the site's own folder is whole; what the ledger holds is :func:`tasks.small_cells.shareable`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    site: str
    patients: dict[str, int]
    slices: dict[str, int]
    groups: dict[str, int]
    suppressed: tuple[str, ...] = ()
    """what was left out because too few patients stand behind it, such as ``groups.HCM``"""
    spacing_min_mm: tuple[float, float, float] | None
    spacing_max_mm: tuple[float, float, float] | None
    crop_px: int
    crop_spacing_mm: float
    dataset_md5: str
    phases: dict[str, int] = {}
    """patients by phase"""
    vendors: dict[str, int] = {}
    """patients by vendor"""
    labels: dict[str, int] = {}
    """patients by phase and annotated structure, such as ``ES LV``"""
    spacing_median_mm: tuple[float, float, float] | None = None
    """(z, y, x)"""
    intensity: float | None = None
    """median over cases of where the middle voxel lies between the volume's 1st and 99th percentile, 0 to 1"""


def is_utf8(path: Path) -> bool:
    """Whether a path can be written to a table: Linux allows any bytes in a name."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: Path | str) -> str:
    """A path for a message; bytes that are not UTF-8 as ``\\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_volume(path: Path, mask: bool = False) -> Volume:
    """Read a 3-D NIfTI file into native axes.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        mask: keep the stored dtype instead of float32.

    Returns:
        Voxels ``(Z, Y, X)``, their spacing in mm, and the way back to the file's own axes.

    Raises:
        UnreadableError: the file is missing, truncated, or not NIfTI.
        GeometryError: not 3-D, no voxels, or spacing missing, implausible or at odds with the affine.
        IntensityError, LabelError: an image's, a mask's voxels are not one real number each.
    """
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise ImageFileError(f"{type(image).__name__} instead of NIfTI")
        affine = checked_affine(image, path)
        need_real_numbers(image.get_data_dtype(), mask, path)
        stored = (
            np.asanyarray(image.dataobj) if mask else image.get_fdata(dtype=np.float32, caching="unchanged")
        )
    except BROKEN_FILE as e:
        raise UnreadableError(f"cannot be read: {' '.join(str(e).split())}", str(path), EXPORT_AGAIN) from e
    orientation = orientation_of(affine)
    z, y, x = (float(np.linalg.norm(affine[:3, axis])) for axis in orientation.axes)
    return Volume(orientation.to_native(stored), (z, y, x), orientation, affine)


def need_real_numbers(dtype: np.dtype[Any], mask: bool, path: Path) -> None:
    """Refuse colour and complex voxels.

    Args:
        dtype: as stored.
        mask: whether the file is a mask.
        path: of the file.

    Raises:
        IntensityError, LabelError: an image's, a mask's voxels are not one real number each.
    """
    if np.issubdtype(dtype, np.integer) or np.issubdtype(dtype, np.floating):
        return
    kind, mend = (LabelError, "export the mask as integers") if mask else (IntensityError, EXPORT_AGAIN)
    raise kind(f"holds voxels of type {dtype}, not one real number each", str(path), mend)


def checked_affine(image: Any, path: Path, axes: int = 3) -> NDArray[np.float64]:
    """The affine of a NIfTI file whose header says where its voxels lie.

    Args:
        image: as nibabel has opened it.
        path: of its file.
        axes: that it must have: 3, or 4 with time last.

    Returns:
        ``(4, 4)`` float64, file voxel indices to RAS+ mm.

    Raises:
        GeometryError: other axes, no voxels, or spacing missing, implausible or at odds with the affine.
    """
    if len(image.shape) != axes:
        mend = "write one file per cardiac phase" if axes == 3 else "give the cine with all its phases"
        raise GeometryError(f"has shape {image.shape}, not {axes}-D", str(path), mend)
    if 0 in image.shape:
        raise GeometryError(f"has shape {image.shape}, no voxel at all", str(path), EXPORT_AGAIN)
    header = _stored_header(image, path)
    spacing_mm = tuple(round(float(step), 6) for step in header["pixdim"][1:4])
    if spacing_mm == (1, 1, 1) and not header["sform_code"] and not header["qform_code"]:
        raise GeometryError(
            "has no spacing stored: pixdim is all 1, sform_code and qform_code are 0",
            str(path),
            "write the scanner's affine into the file",
        )
    low, high = SPACING_MM
    if not all(low <= step <= high for step in spacing_mm):
        raise GeometryError(
            f"has spacing {spacing_mm} mm, outside {low}…{high} mm",
            str(path),
            "write the true spacing to pixdim",
        )
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.allclose(np.linalg.norm(affine[:3, :3], axis=0), spacing_mm, rtol=0.01):
        said = np.linalg.norm(affine[:3, :3], axis=0).round(3).tolist()
        raise GeometryError(
            f"has spacing {spacing_mm} mm in pixdim and {said} mm in the affine", str(path), EXPORT_AGAIN
        )
    return affine


def _stored_header(image: Any, path: Path) -> Any:
    """The header in the file's bytes: in nibabel's own, a pixdim of zero is already replaced by one."""
    with ImageOpener(str(path)) as file:
        return type(image.header).from_fileobj(file, check=False)


def write_cases(path: Path, rows: Iterable[CaseRow]) -> None:
    """Write the case table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(CaseRow)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(row) for row in rows)


def read_cases(site_home: Path, split: str | None = None) -> tuple[CaseRow, ...]:
    """Read a prepared site's case table.

    Args:
        site_home: the site's folder below ``home``.
        split: only this side's rows; all without it.

    Returns:
        The rows in the table's order; empty when no case stands on that side.

    Raises:
        UnreadableError: the site was not prepared, or the table is damaged.
    """
    path = site_home / CASES_FILE
    casts = {"float": float, "int": int, "str": str}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                CaseRow(**{field.name: casts[str(field.type)](line[field.name]) for field in fields(CaseRow)})
                for line in csv.DictReader(file)
            ]
        for row in rows:
            labels_named(row.labels)
    except (OSError, KeyError, ValueError, TypeError) as e:
        raise UnreadableError(f"no usable case table: {e}", str(path), "prepare the site's data again") from e
    return tuple(row for row in rows if split in (None, row.split))
