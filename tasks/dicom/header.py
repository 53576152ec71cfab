"""Typed reading of the DICOM tags that a cine stack is made of."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from model.errors import DataError, GeometryError, UnreadableError

MAX_SIDE_PX, MAX_FRAMES = 4096, 20_000
SPACING_MM = (0.2, 50.0)
EXPORT_AGAIN = "export the series again from the original images"
BROKEN = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError),
    *(NotImplementedError, OverflowError, MemoryError, RuntimeError),
    *(InvalidDicomError, struct.error),
)
"""What pydicom and its decoders raise for damaged files."""


@dataclass(frozen=True)
class Header:
    """One image: a file, or one frame of an enhanced file.

    Attributes:
        frame: index in an enhanced file, else None.
        position_mm: centre of the first pixel, patient coordinates (LPS).
        row, column: unit vectors along increasing column and row index.
        spacing_mm: (y, x).
        slope, intercept: stored value to real value.
    """

    path: Path
    frame: int | None
    sop_uid: str
    series_uid: str
    study_uid: str
    reference_uid: str
    patient: str
    description: str
    modality: str
    vendor: str
    image_type: tuple[str, ...]
    variant: tuple[str, ...]
    inversion_ms: float | None
    shape: tuple[int, int]
    position_mm: tuple[float, float, float]
    row: tuple[float, float, float]
    column: tuple[float, float, float]
    spacing_mm: tuple[float, float]
    trigger_ms: float | None
    temporal: int | None
    instance: int | None
    slope: float
    intercept: float

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slice: row × column."""
        return np.cross(np.array(self.row), np.array(self.column))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's remarks on odd but harmless values, such as a UID with a leading zero, off the screen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load(path: Path, pixels: bool = False) -> pydicom.Dataset:
    """Open one file."""
    try:
        with quiet():
            return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except BROKEN as error:
        raise UnreadableError(f"not readable as DICOM: {error}", str(path), EXPORT_AGAIN) from error


def header_of(data: Any, path: Path, frame: int | None = None, groups: Any = ()) -> Header:
    """Read one image's tags.

    Args:
        data: the file's data set.
        path: of the file.
        frame: index in an enhanced file.
        groups: data sets to look into before ``data``, the frame's own first.

    Returns:
        What ordering, geometry and decoding need.

    Raises:
        GeometryError: position, orientation, spacing or size missing or impossible.
        UnreadableError: a tag holds what is no value of its kind, or an identity is missing.
    """
    places = (*groups, data)
    try:
        with quiet():
            return _header(places, path, frame)
    except DataError:
        raise
    except BROKEN as error:
        raise UnreadableError(
            f"a tag holds no value of its kind: {error}", str(path), EXPORT_AGAIN
        ) from error


def _header(places: tuple[Any, ...], path: Path, frame: int | None) -> Header:
    row, column = _axes(places, path)
    vector = _numbers(places, "ImagePositionPatient", 3, path)
    spacing = _numbers(places, "PixelSpacing", 2, path)
    if not all(SPACING_MM[0] <= side <= SPACING_MM[1] for side in spacing):
        raise GeometryError(f"PixelSpacing is {spacing} mm", str(path), EXPORT_AGAIN)
    size = int(_tag(places, "Rows") or 0), int(_tag(places, "Columns") or 0)
    if not all(0 < side <= MAX_SIDE_PX for side in size):
        raise GeometryError(f"Rows and Columns are {size}", str(path), EXPORT_AGAIN)
    slope, intercept = _real(places, "RescaleSlope", 1.0), _real(places, "RescaleIntercept", 0.0)
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise UnreadableError(f"RescaleSlope {slope}, RescaleIntercept {intercept}", str(path), EXPORT_AGAIN)
    trigger = _tag(places, "TriggerTime")
    trigger = _tag(places, "NominalCardiacTriggerDelayTime") if trigger is None else trigger
    inversion = _tag(places, "InversionTime")
    inversion = _tag(places, "InversionTimes") if inversion is None else inversion
    return Header(
        path=path,
        frame=frame,
        sop_uid=_uid(places, "SOPInstanceUID", path),
        series_uid=_uid(places, "SeriesInstanceUID", path),
        study_uid=_uid(places, "StudyInstanceUID", path),
        reference_uid=str(_tag(places, "FrameOfReferenceUID") or ""),
        patient=str(_tag(places, "PatientID") or ""),
        description=str(_tag(places, "SeriesDescription") or ""),
        modality=str(_tag(places, "Modality") or ""),
        vendor=str(_tag(places, "Manufacturer") or ""),
        image_type=_words(places, "FrameType") or _words(places, "ImageType"),
        variant=_words(places, "SequenceVariant"),
        inversion_ms=None if inversion is None else float(np.ravel(inversion)[0]),
        shape=size,
        position_mm=(vector[0], vector[1], vector[2]),
        row=row,
        column=column,
        spacing_mm=(spacing[0], spacing[1]),
        trigger_ms=None if trigger is None else float(trigger),
        temporal=_integer(places, "TemporalPositionIdentifier", "TemporalPositionIndex"),
        instance=_integer(places, "InstanceNumber"),
        slope=slope,
        intercept=intercept,
    )


def _axes(
    places: tuple[Any, ...], path: Path
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    six = np.array(_numbers(places, "ImageOrientationPatient", 6, path))
    row, column = six[:3], six[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(row @ column) > 0.01:
        said = f"ImageOrientationPatient {six.tolist()} is no pair of perpendicular unit vectors"
        raise GeometryError(said, str(path), EXPORT_AGAIN)
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return (float(row[0]), float(row[1]), float(row[2])), (
        float(column[0]),
        float(column[1]),
        float(column[2]),
    )


def _tag(places: tuple[Any, ...], name: str) -> Any:
    for place in places:
        value = place.get(name)
        if value is not None and value != "":
            return value
    return None


def _numbers(places: tuple[Any, ...], name: str, count: int, path: Path) -> list[float]:
    value = _tag(places, name)
    if value is None:
        raise GeometryError(f"{name} is missing", str(path), EXPORT_AGAIN)
    numbers = [float(each) for each in np.ravel(value)]
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise GeometryError(f"{name} is {numbers}, not {count} finite numbers", str(path), EXPORT_AGAIN)
    return numbers


def _real(places: tuple[Any, ...], name: str, default: float) -> float:
    value = _tag(places, name)
    return default if value is None else float(value)


def _integer(places: tuple[Any, ...], *names: str) -> int | None:
    return next((int(value) for name in names if (value := _tag(places, name)) is not None), None)


def _words(places: tuple[Any, ...], name: str) -> tuple[str, ...]:
    value = _tag(places, name)
    if value is None:
        return ()
    return (value.upper(),) if isinstance(value, str) else tuple(str(word).upper() for word in value)


def _uid(places: tuple[Any, ...], name: str, path: Path) -> str:
    value = _tag(places, name)
    if value is None:
        raise UnreadableError(f"{name} is missing", str(path), EXPORT_AGAIN)
    return str(value)
