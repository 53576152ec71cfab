"""Where slices lie: order and spacing by position along the normal, and which view a series shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.errors import GeometryError
from tasks.dicom.header import SPACING_MM, Header

LONG_AXIS = np.array([-0.65, 0.6, 0.45]) / np.linalg.norm([-0.65, 0.6, 0.45])
"""From apex to base in a usual chest, LPS: to the right, backward and upward."""
SHORT_AXIS_COS = 0.75
"""A short-axis slice's normal lies within 41° of it; axial, sagittal and chamber views do not."""
SAME_PLACE_MM, OFF_LINE_MM, UNEVEN = 0.1, 1.0, 0.05
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def is_short_axis(header: Header) -> bool:
    """Tell whether a slice lies across the usual long axis of the left ventricle."""
    return bool(abs(header.normal @ LONG_AXIS) >= SHORT_AXIS_COS)


def by_slice(headers: Sequence[Header]) -> list[list[Header]]:
    """Group images by place and order the places along the normal.

    Args:
        headers: of one stack, with one orientation.

    Returns:
        A list per slice, by ascending ImagePositionPatient · normal.
    """
    normal = headers[0].normal
    places: dict[float, list[Header]] = defaultdict(list)
    for header in sorted(headers, key=lambda one: float(normal @ one.position_mm)):
        along = float(normal @ header.position_mm)
        last = next(reversed(places), None)
        places[last if last is not None and along - last <= SAME_PLACE_MM else along].append(header)
    return list(places.values())


def affine_of(slices: Sequence[Sequence[Header]], where: str) -> NDArray[np.float64]:
    """Compute the map from (x, y, z) indices to RAS millimetres, oblique as acquired.

    Args:
        slices: images per slice, in order.
        where: the stack's name for errors.

    Returns:
        ``(4, 4)`` float64.

    Raises:
        GeometryError: fewer than three slices, a slice missing, moved within its plane, or orientations or
            pixel spacings that differ.
    """
    first = slices[0][0]
    if len(slices) < 3:
        said = f"{len(slices)} slices; a stack has 3 or more"
        raise GeometryError(said, where, "give the folder with the whole stack")
    for header in (one for place in slices for one in place):
        if header.shape != first.shape or not np.allclose(header.spacing_mm, first.spacing_mm, atol=1e-3):
            raise GeometryError("images differ in size or PixelSpacing", str(header.path), "import one stack")
        if header.normal @ first.normal < 0.9999 or np.dot(header.row, first.row) < 0.9999:
            raise GeometryError("images differ in orientation", str(header.path), "import one stack")
    corners = np.array([place[0].position_mm for place in slices])
    for place, corner in zip(slices, corners, strict=True):
        if any(np.linalg.norm(np.subtract(one.position_mm, corner)) > OFF_LINE_MM for one in place):
            raise GeometryError("phases of one slice lie at different places", where, "import one stack")
    steps = np.diff(corners @ first.normal)
    step = float(np.median(steps))
    if not SPACING_MM[0] <= step <= SPACING_MM[1]:
        raise GeometryError(f"slices lie {step:.2f} mm apart", where, "import one stack")
    if np.abs(steps - step).max() > UNEVEN * step:
        apart = ", ".join(f"{each:.2f}" for each in steps)
        raise GeometryError(f"slices are missing or uneven: {apart} mm apart", where, "export every slice")
    off = corners - corners[0] - np.outer((corners - corners[0]) @ first.normal, first.normal)
    if np.linalg.norm(off, axis=1).max() > OFF_LINE_MM:
        raise GeometryError("slices are shifted within their plane", where, "resample the stack to one grid")
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.row) * first.spacing_mm[1]
    affine[:3, 1] = np.array(first.column) * first.spacing_mm[0]
    affine[:3, 2] = first.normal * steps.mean()
    affine[:3, 3] = corners[0]
    return np.asarray(LPS_TO_RAS @ affine, np.float64)
