"""Import a data set in the layout of the ACDC challenge, and say everything that is wrong with it at once.

``patient001/Info.cfg``, ``patient001_frame01.nii.gz``, ``patient001_frame01_gt.nii.gz``: a folder per patient, at
any depth, with one image and one mask for each of the frames that ``Info.cfg`` names as ED and ES.

Source: Bernard et al., IEEE TMI 2018.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from model.errors import CohortError, DataError, PairError, PhaseError, UnreadableError
from tasks.cases import Frame, Patient, is_utf8, printable, read_volume
from tasks.importers.checks import faults_of, raise_all
from tasks.importers.found import Found, Scan, Study

FRAME = re.compile(r"_frame0*(\d+)(_gt)?\.nii(\.gz)?$", re.IGNORECASE)
NUMBER = re.compile(r"\d{1,6}")


def read_acdc(root: Path) -> list[Patient]:
    """Find every patient below ``root`` and check all of their files.

    Args:
        root: folder with patient folders at any depth; links are followed.

    Returns:
        The patients by folder name.

    Raises:
        DataError: one fault: the error of its kind; several: one error with a line for each, of the common
            kind or, if kinds differ, plain ``DataError``.
    """
    faults: list[DataError] = []
    folders = sorted(_patient_folders(root, faults), key=lambda folder: (folder.name, str(folder)))
    if not folders and not faults:
        raise CohortError(
            "no patient folder found",
            str(root),
            "give a folder that holds patientXXX folders with an Info.cfg",
        )
    patients: list[Patient] = []
    faults += _twice(folders)
    for folder in folders:
        try:
            _need_utf8(folder)
            patient = _read_patient(folder)
            patients.append(patient)
            faults += faults_of(patient)
        except DataError as fault:
            faults.append(fault)
    raise_all(faults, root)
    return patients


def find_acdc(root: Path) -> list[Found]:
    """Find ACDC's patients for an import; all their files are checked here already."""
    return [Found(one.folder_id, one.folder, partial(_study, one)) for one in read_acdc(root)]


def _study(patient: Patient) -> Study:
    scans = {}
    for phase, frame in patient.frames.items():
        image, mask = read_volume(frame.image), read_volume(frame.mask, mask=True)
        values, labels = (volume.orientation.to_file(volume.values) for volume in (image, mask))
        scans[phase] = Scan(values, labels, image.affine)
    return Study(patient.group, patient.vendor, patient.centre, scans)


def _patient_folders(root: Path, faults: list[DataError]) -> Iterator[Path]:
    """Every patient folder; what cannot be entered is added to ``faults``, never passed over."""
    seen: set[str] = set()

    def closed(error: OSError) -> None:
        said = f"cannot be entered: {error.strerror or error}"
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        mend = "check the path" if gone else "give the right to read it, or choose a folder without it"
        faults.append(UnreadableError(said, printable(error.filename or root), mend))

    for path, below, files in os.walk(root, onerror=closed, followlinks=True):
        below.sort()  # of two links to one folder the first by name counts, on every machine
        real = os.path.realpath(path)
        if real in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(real)
        faults += _dead_links(Path(path), files)
        if any(name.lower() == "info.cfg" or FRAME.search(name) for name in files):
            yield Path(path)


def _dead_links(folder: Path, names: list[str]) -> Iterator[DataError]:
    for path in (folder / name for name in sorted(names)):
        if not path.is_symlink():
            continue
        try:
            path.stat()
        except OSError as e:
            said, mend = f"is a link that leads nowhere: {e.strerror}", "bring its target back, or remove it"
            yield UnreadableError(said, printable(path), mend)


def _need_utf8(folder: Path) -> None:
    for path in (folder, *sorted(folder.rglob("*"))):
        if not is_utf8(path):
            raise DataError("has a name that is not UTF-8", printable(path), "rename it in plain letters")


def _twice(folders: list[Path]) -> Iterator[DataError]:
    first: dict[str, Path] = {}
    for folder in folders:
        twin = first.setdefault(folder.name.lower(), folder)
        if twin is not folder:
            yield CohortError(
                f"patient {printable(folder.name)} stands also at {printable(twin)}",
                printable(folder),
                "remove one of the two",
            )


def _read_patient(folder: Path) -> Patient:
    info = _read_info(folder)
    number = {phase: _frame_number(info, phase, folder) for phase in ("ed", "es")}
    if number["ed"] == number["es"]:
        raise PhaseError(
            f"ED and ES are both frame {number['ed']}", str(folder / "Info.cfg"), "correct Info.cfg"
        )
    if not info.get("group"):
        raise CohortError(
            "no 'Group' in Info.cfg", str(folder / "Info.cfg"), "add a line such as 'Group: NOR'"
        )
    frames = [_find_frame(folder, number[phase]) for phase in ("ed", "es")]
    vendor, centre = (info.get(key, "") or "unknown" for key in ("vendor", "centre"))
    return Patient(folder.name, info["group"], vendor, centre, *frames)


def _read_info(folder: Path) -> dict[str, str]:
    """``Info.cfg`` as lower-case keys; ``patient's height`` counts as ``height``."""
    found = sorted(path for path in folder.iterdir() if path.name.lower() == "info.cfg")
    if not found:
        raise PhaseError(
            "no Info.cfg beside the frames", str(folder), "restore it: it says which are ED and ES"
        )
    try:
        lines = found[0].read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as e:
        raise UnreadableError(f"cannot be read: {e}", str(found[0]), "check the file's permissions") from e
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {key.strip().lower().removeprefix("patient's "): value.strip() for key, _, value in pairs}


def _frame_number(info: dict[str, str], phase: str, folder: Path) -> int:
    where, text = str(folder / "Info.cfg"), info.get(phase, "")
    if not NUMBER.fullmatch(text):
        said = (
            f"{phase.upper()} is '{text[:20]}', not a frame number"
            if text
            else f"no '{phase.upper()}' in Info.cfg"
        )
        raise PhaseError(said, where, f"add a line such as '{phase.upper()}: 1'")
    count = info.get("nbframe", "")
    if NUMBER.fullmatch(count) and int(text) > int(count):
        raise PhaseError(f"{phase.upper()} is frame {text} of {count}", where, "correct Info.cfg")
    return int(text)


def _find_frame(folder: Path, number: int) -> Frame:
    found: dict[bool, list[Path]] = {False: [], True: []}
    for path in sorted(folder.iterdir()):
        match = FRAME.search(path.name)
        if match and int(match[1]) == number:
            found[match[2] is not None].append(path)
    images, masks = found[False], found[True]
    where, mend = str(folder), f"put exactly one image and one _gt mask of frame {number} there"
    if not images and not masks:
        raise PhaseError(f"neither image nor mask of frame {number}", where, mend)
    if not masks:
        raise PairError(f"frame {number} has an image without mask", where, mend)
    if not images:
        raise PairError(f"frame {number} has a mask without image", where, mend)
    if len(images) + len(masks) > 2:
        raise PairError(f"frame {number} has {len(images)} images and {len(masks)} masks", where, mend)
    return Frame(images[0], masks[0])
