"""Every image of a file: one of a classic file, all frames of an enhanced one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.errors import UnreadableError
from tasks.dicom.header import EXPORT_AGAIN, MAX_FRAMES, Header, header_of

GROUPS = (
    *("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"),
    *("CardiacSynchronizationSequence", "FrameContentSequence", "PixelValueTransformationSequence"),
    *("MRImageFrameTypeSequence", "MRModifierSequence"),
)


def headers_of(data: Any, path: Path) -> list[Header]:
    """List a file's images.

    Args:
        data: the file's data set.
        path: of the file.

    Returns:
        One header for a classic file, one per frame for an enhanced one.

    Raises:
        DataError: the tags do not describe an image, or the frames are not as many as announced.
    """
    own = data.get("PerFrameFunctionalGroupsSequence")
    count = int(data.get("NumberOfFrames") or 1)
    if own is None:
        if count > 1:
            said = f"{count} frames without a position for each"
            raise UnreadableError(said, str(path), "export as enhanced MR or as one file per image")
        return [header_of(data, path)]
    if len(own) != count or count > MAX_FRAMES:
        raise UnreadableError(f"{count} frames announced, {len(own)} described", str(path), EXPORT_AGAIN)
    shared = [part for group in (data.get("SharedFunctionalGroupsSequence") or []) for part in _parts(group)]
    return [header_of(data, path, index, (*_parts(group), *shared)) for index, group in enumerate(own)]


def _parts(group: Any) -> list[Any]:
    return [group[name].value[0] for name in GROUPS if name in group and group[name].value]
