"""Which series make up the short-axis cine, and why the others do not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model.errors import DataError, GeometryError
from tasks.dicom.folder import Series
from tasks.dicom.geometry import affine_of, by_slice, is_short_axis
from tasks.dicom.header import Header
from tasks.dicom.phases import order_phases


@dataclass(frozen=True)
class Verdict:
    """One series and what became of it: ``why_not`` is empty when it was taken."""

    series: Series
    slices: int
    phases: int
    why_not: str


def why_not(series: Series) -> str:
    """Say why a series by itself is no short-axis cine; empty when it may be."""
    if series.modality != "MR":
        return f"modality {series.modality or 'missing'}, not MR"
    if series.faults:
        return series.faults[0].what
    first = series.headers[0]
    kinds = {kind for one in series.headers for kind in one.image_type}
    late = "MP" in first.variant or bool(first.inversion_ms)
    images: dict[tuple[float, ...], int] = defaultdict(int)
    for one in series.headers:
        images[tuple(round(each, 1) for each in one.position_mm)] += 1
    reasons = (
        ("LOCALIZER" in kinds, "scout: ImageType says localizer"),
        (bool(kinds & {"DERIVED", "SECONDARY"}), "derived: not the original images"),
        (bool(kinds & {"P", "PHASE", "VELOCITY", "PHASE MAP"}), "phase or velocity images"),
        (late, "late enhancement or mapping: prepared by an inversion"),
        (len({_plane(one) for one in series.headers}) > 1, "scout: planes of several orientations"),
        (not is_short_axis(first), "not short-axis: its plane is a long-axis, axial or other view"),
        (max(images.values()) < 2, "one image per slice: not a cine"),
    )
    return next((reason for is_so, reason in reasons if is_so), "")


def choose(found: Sequence[Series], where: str) -> tuple[list[list[Header]], list[Verdict]]:
    """Assemble the one short-axis cine of a folder.

    A scanner writes a stack as one series or as a series per slice; the latter are put together when plane,
    size, spacing and frame of reference agree.

    Args:
        found: all series of the folder.
        where: the folder, for errors.

    Returns:
        Images per slice in order of place and time, and a verdict per series.

    Raises:
        GeometryError: no stack, or more than one; or its geometry is faulty.
        PhaseError: its phases cannot be ordered.
        DataError: several patients or unreadable images in the stack.
    """
    whole, verdicts = stacks(found)
    if not whole:
        said = "; ".join(f"{one.series.description or one.series.uid}: {one.why_not}" for one in verdicts)
        raise GeometryError(f"no short-axis cine ({said})", where, "give the folder with the short-axis cine")
    if len(whole) > 1:
        names = ", ".join(one[0].description or one[0].series_uid for one in whole)
        raise GeometryError(
            f"{len(whole)} short-axis stacks: {names}", where, "leave one of them in the folder"
        )
    return arrange(whole[0], where), verdicts


def stacks(found: Sequence[Series]) -> tuple[list[list[Header]], list[Verdict]]:
    """Group the series that may be short-axis cine into stacks; one verdict per series."""
    groups: dict[Any, list[Header]] = defaultdict(list)
    verdicts = []
    for series in found:
        reason = why_not(series)
        phases = slices = 0
        if series.headers:
            slices = len(by_slice(series.headers))
            phases = len(series.headers) // slices
        if not reason:
            first = series.headers[0]
            alone = series.uid if slices > 1 else ""
            groups[
                (_plane(first), first.study_uid, first.reference_uid, first.patient, first.shape, alone)
            ] += series.headers
        verdicts.append(Verdict(series, slices, phases, reason))
    return list(groups.values()), verdicts


def arrange(headers: Sequence[Header], where: str) -> list[list[Header]]:
    """Put one stack's images in order, repeated copies left out."""
    slices = by_slice(without_copies(headers))
    affine_of(slices, where)
    return order_phases(slices, where)


def without_copies(headers: Sequence[Header]) -> list[Header]:
    """Keep one of files that are byte for byte the same image; refuse one identity on two images."""
    kept: dict[tuple[str, int | None], Header] = {}
    for one in headers:
        known = kept.setdefault((one.sop_uid, one.frame), one)
        if known is not one and known.path.read_bytes() != one.path.read_bytes():
            said = f"two different images carry one SOPInstanceUID, the other is {known.path.name}"
            raise DataError(said, str(one.path), "export the series again from the original images")
    return list(kept.values())


def _plane(header: Header) -> tuple[float, ...]:
    return tuple(round(each, 2) + 0.0 for each in (*header.row, *header.column))
