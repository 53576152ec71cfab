"""Import a data set in the layout of the ACDC challenge, and say everything that is wrong with it at once.

``patient001/Info.cfg``, ``patient001_frame01.nii.gz``, ``patient001_frame01_gt.nii.gz``: a folder per patient, at
any depth, with one image and one mask for each of the frames that ``Info.cfg`` names as ED and ES.

Source: Bernard et al., IEEE TMI 2018.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model.errors import (
    CohortError,
    DataError,
    GeometryError,
    IntensityError,
    LabelError,
    PairError,
    PhaseError,
    UnreadableError,
)
from model.labels import LV, MYO, N_CLASSES
from tasks.cases import EXPORT_AGAIN, Frame, Patient, Volume, is_utf8, printable, read_volume

FRAME = re.compile(r"_frame0*(\d+)(_gt)?\.nii(\.gz)?$", re.IGNORECASE)
NUMBER = re.compile(r"\d{1,6}")
APART_MM = 0.5
"""How far an image's and its mask's corners may lie apart before they are two grids."""


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
            faults += _faults(patient)
        except DataError as fault:
            faults.append(fault)
    _raise(faults, root)
    return patients


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


def _faults(patient: Patient) -> Iterator[DataError]:
    """Everything wrong with a patient's files."""
    images = []
    for phase, frame in patient.frames.items():
        faults: list[DataError] = []
        image, mask = _try_read(frame.image, False, faults), _try_read(frame.mask, True, faults)
        yield from faults
        if image:
            images.append(image)
            yield from _image_faults(image, frame.image)
        if mask:
            yield from _mask_faults(mask, phase, frame.mask)
        if image and mask:
            yield from _grid_faults(image, mask, frame)
    if len(images) == 2:
        yield from _phase_faults(images[0], images[1], patient)


def _try_read(path: Path, mask: bool, faults: list[DataError]) -> Volume | None:
    try:
        return read_volume(path, mask)
    except DataError as fault:
        faults.append(type(fault)(fault.what, str(path), fault.mend))
        return None


def _image_faults(image: Volume, path: Path) -> Iterator[DataError]:
    unusable = int(np.count_nonzero(~np.isfinite(image.values)))
    if unusable:
        yield IntensityError(f"holds {unusable} NaN or infinite voxels", str(path), EXPORT_AGAIN)
    elif image.values.min() == image.values.max():
        yield IntensityError(f"is constant, every voxel is {image.values.flat[0]:g}", str(path), EXPORT_AGAIN)


def _mask_faults(mask: Volume, phase: str, path: Path) -> Iterator[DataError]:
    values = np.unique(mask.values)
    strange = [float(value) for value in values if value not in range(N_CLASSES)]
    if any(value != round(value) if np.isfinite(value) else True for value in strange):
        yield LabelError(
            f"holds {strange[:3]}, which are not integers", str(path), "resample masks by nearest voxel"
        )
    elif strange:
        yield LabelError(
            f"holds labels {strange[:5]} outside 0…{N_CLASSES - 1}", str(path), "map to 1 RV, 2 MYO, 3 LV"
        )
    else:
        yield from _unmarked(set(values.tolist()), phase, path)


def _unmarked(labels: set[float], phase: str, path: Path) -> Iterator[DataError]:
    """A mask without a heart would teach that everything is background; only the RV may be absent at ED."""
    needed = {"MYO": MYO, "LV": LV} if phase == "ED" else {}
    absent = [name for name, label in needed.items() if label not in labels]
    if labels == {0}:
        said = f"is an {phase} mask that marks nothing, every voxel is background"
    elif absent:
        said = f"is an ED mask that marks no {' and no '.join(absent)}"
    else:
        return
    yield LabelError(said, str(path), "complete the annotation, or take the patient out")


def _grid_faults(image: Volume, mask: Volume, frame: Frame) -> Iterator[DataError]:
    mend = "write the mask with its image's own header"
    if image.values.shape != mask.values.shape:
        shapes = f"{mask.values.shape} voxels, its image {image.values.shape}"
        yield GeometryError(f"has (Z, Y, X) = {shapes}", str(frame.mask), mend)
        return
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(image.orientation.to_file(image.values).shape) - 1)
    moved = np.c_[corners, np.ones(8)] @ (image.affine - mask.affine).T
    apart_mm = float(np.linalg.norm(moved[:, :3], axis=1).max())
    if apart_mm > APART_MM:
        yield GeometryError(f"has an affine {apart_mm:.1f} mm away from its image's", str(frame.mask), mend)


def _phase_faults(ed: Volume, es: Volume, patient: Patient) -> Iterator[DataError]:
    where = str(patient.folder)
    same_spacing = np.allclose(ed.spacing_mm, es.spacing_mm, rtol=1e-3)
    if ed.values.shape != es.values.shape or not same_spacing or ed.orientation != es.orientation:
        yield GeometryError("ED and ES lie on different grids", where, "export both from one cine series")
    elif np.array_equal(ed.values, es.values):
        yield PhaseError("ED and ES are the same picture", where, "restore the ES frame")


def _raise(faults: list[DataError], root: Path) -> None:
    if not faults:
        return
    if len(faults) == 1:
        raise faults[0]
    kinds = {type(fault) for fault in faults}
    lines = [f"{fault.where}: {fault.what} → {fault.mend}" for fault in faults]
    kind = kinds.pop() if len(kinds) == 1 else DataError
    raise kind(f"{len(faults)} faults\n    " + "\n    ".join(lines), str(root), "mend every line above")
