"""Find the series in a folder of mixed files."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from model.errors import DataError, UnreadableError
from tasks.dicom.frames import headers_of
from tasks.dicom.header import BROKEN, EXPORT_AGAIN, Header, load, quiet

FOREIGN = ("DICOMDIR",)


@dataclass(frozen=True)
class Series:
    """One series: its readable images, and what was wrong with the others."""

    uid: str
    description: str
    modality: str
    headers: tuple[Header, ...]
    faults: tuple[DataError, ...]


def find_series(folder: Path) -> list[Series]:
    """Sort every DICOM file below ``folder`` into series, whatever its name.

    A file that is neither named ``.dcm`` nor begins as DICOM does is passed over.

    Args:
        folder: searched at any depth.

    Returns:
        The series, each with its headers and what was wrong with its files.

    Raises:
        UnreadableError: no such folder, no DICOM file in it, or a ``.dcm`` file that cannot be opened.
    """
    images: dict[str, list[Header]] = defaultdict(list)
    faults: dict[str, list[DataError]] = defaultdict(list)
    words: dict[str, tuple[str, str]] = {}
    for path in _files(folder):
        data = load(path)
        with quiet():
            uid = str(data.get("SeriesInstanceUID") or f"(no series) {path.name}")
            words.setdefault(uid, (str(data.get("SeriesDescription") or ""), str(data.get("Modality") or "")))
            if words[uid][1] not in ("MR", ""):
                continue
            try:
                images[uid] += headers_of(data, path)
            except DataError as fault:
                faults[uid].append(fault)
            except BROKEN as error:
                faults[uid].append(UnreadableError(f"a tag cannot be read: {error}", str(path), EXPORT_AGAIN))
    if not words:
        raise UnreadableError("no DICOM file found", str(folder), "give a folder that holds a DICOM export")
    return [Series(uid, *words[uid], tuple(images[uid]), tuple(faults[uid])) for uid in sorted(words)]


def holds_dicom(path: Path) -> bool:
    """Whether a file is DICOM, or a folder holds one at any depth."""
    if path.is_dir():
        return any(holds_dicom(Path(top) / name) for top, _, names in os.walk(path) for name in names)
    return path.name not in FOREIGN and _is_dicom(path)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UnreadableError("no such folder", str(folder), "check the path")

    def closed(error: OSError) -> None:
        raise UnreadableError(
            f"cannot be entered: {error}", str(folder), "give the right to read it"
        ) from error

    found = (Path(top) / name for top, _, names in os.walk(folder, onerror=closed) for name in names)
    return sorted(path for path in found if path.name not in FOREIGN and _is_dicom(path))


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in (".dcm", ".ima"):
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error}", str(path), "give the right to read it") from error
