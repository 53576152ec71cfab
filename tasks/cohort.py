"""Writes the published synthetic cohort: four hospitals, four scanners, the layout of the ACDC challenge.

The files are the same, byte for byte, on every machine: their DVC hash is in the repository. So volumes come
from ``model/phantom.py`` (see the rule in ``model/exact.py``), headers are filled field by field, and nothing
is compressed.
"""

from __future__ import annotations

import filecmp
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from model.errors import CohortError, DiskError
from model.exact import between
from model.phantom import Patient, draw_patient, render, volumes_ml
from model.phantom_anatomy import Phase
from model.scanner import FLAT_CONTRAST, HARD_CONTRAST, SURFACE_COIL, TEXTBOOK, Scanner, acquire

SEED = 2501_03223


@dataclass(frozen=True)
class SiteSpec:
    """One hospital of the cohort.

    Args:
        name: its folder.
        scanner: its signature.
        groups: pathology group of every patient, in order.
        first_number: number of its first patient.
        quaternion: b, c, d of the NIfTI orientation; the stack is stored along these axes.
        flips: which of the stored x, y, z run against the screen's columns, rows and slices.
        height_key: how this hospital's export names the patient's height.
    """

    name: str
    scanner: Scanner
    groups: tuple[str, ...]
    first_number: int
    quaternion: tuple[float, float, float]
    flips: tuple[bool, bool, bool]
    height_key: str = "Height"


@dataclass(frozen=True)
class TrueVolumes:
    """A patient's true left-ventricular volumes."""

    patient: str
    group: str
    edv_ml: float
    esv_ml: float

    @property
    def ef_percent(self) -> float:
        """Ejection fraction, %."""
        return 100 * (self.edv_ml - self.esv_ml) / self.edv_ml


@dataclass(frozen=True)
class SiteCohort:
    """What was written for one hospital."""

    site: str
    folder: Path
    patients: tuple[TrueVolumes, ...]
    bytes: int


SITES = (
    SiteSpec(
        "st-anna", TEXTBOOK,
        ("NOR", "DCM", "HCM", "MINF", "RV", "NOR", "DCM", "HCM", "MINF", "RV", "NOR", "NOR"),
        first_number=1, quaternion=(0.0, 0.0, 1.0), flips=(False, False, True),
    ),
    SiteSpec(
        "riverside", SURFACE_COIL,
        ("NOR", "MINF", "DCM", "HCM", "RV", "MINF", "NOR", "DCM", "MINF"),
        first_number=13, quaternion=(0.0, 0.0, 0.0), flips=(True, True, True),
        height_key="patient's Height",
    ),
    SiteSpec(
        "hillcrest", FLAT_CONTRAST,
        ("HCM", "NOR", "RV", "DCM", "HCM", "NOR", "MINF", "RV"),
        first_number=22, quaternion=(0.0, 1.0, 0.0), flips=(False, True, False),
    ),
    SiteSpec(
        "lakeside", HARD_CONTRAST,
        ("DCM", "NOR", "HCM", "MINF", "RV", "DCM", "NOR"),
        first_number=30, quaternion=(0.16, -0.2, 0.95), flips=(False, False, True),
    ),
)  # fmt: skip
"""The four hospitals. Stored as ACDC's files (LPS), as RAS, as LAI, and oblique to the scanner's axes."""


def write_cohort(root: Path) -> tuple[SiteCohort, ...]:
    """Write the cohort: ``root/<site>/patientNNN/``, in each ``Info.cfg`` and ED and ES with their masks.

    It appears whole or not at all. A folder that already holds exactly this cohort is left as it is.

    Args:
        root: new or empty folder, or one that holds this cohort.

    Returns:
        One record per hospital, with every patient's true volumes.

    Raises:
        CohortError: ``root`` holds something else; nothing of it is touched.
        DiskError: the files could not be written.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
            fresh = Path(temporary) / "cohort"
            written = tuple(_write_site(spec, fresh, root) for spec in SITES)
            _put_in_place(fresh, root)
    except OSError as e:
        raise DiskError(
            f"the cohort could not be written: {e.strerror or e}",
            str(root),
            "free 50 MB, or choose another folder",
        ) from e
    return written


def true_volumes(spec: SiteSpec) -> tuple[TrueVolumes, ...]:
    """Compute the true volumes of a hospital's patients, without writing or rendering anything.

    Args:
        spec: one of ``SITES``.

    Returns:
        Left-ventricular EDV and ESV in ml per patient, in the order of their numbers.
    """
    return tuple(
        _truth(_name(number), patient, spec)
        for number in _numbers(spec)
        for patient in (_patient(spec, number, _generator(number)),)
    )


def _numbers(spec: SiteSpec) -> range:
    return range(spec.first_number, spec.first_number + len(spec.groups))


def _name(number: int) -> str:
    return f"patient{number:03d}"


def _generator(number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox([SEED, number]))


def _patient(spec: SiteSpec, number: int, rng: np.random.Generator) -> Patient:
    return draw_patient(spec.groups[number - spec.first_number], spec.scanner.slices, rng)


def _truth(name: str, patient: Patient, spec: SiteSpec) -> TrueVolumes:
    edv, esv = volumes_ml(patient, spec.scanner)
    return TrueVolumes(name, patient.heart.group, edv, esv)


def _write_site(spec: SiteSpec, fresh: Path, root: Path) -> SiteCohort:
    folder = fresh / spec.name
    for number in _numbers(spec):
        write_patient(spec, number, folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return SiteCohort(spec.name, root / spec.name, true_volumes(spec), size)


def write_patient(spec: SiteSpec, number: int, folder: Path) -> None:
    """Write one patient's folder below ``folder``.

    Args:
        spec: the hospital.
        number: the patient's, from ``spec.first_number``.
        folder: the hospital's.
    """
    rng = _generator(number)
    patient, name = _patient(spec, number, rng), _name(number)
    home = folder / name
    home.mkdir(parents=True)
    es_frame = int(rng.integers(8, 14))
    phases: tuple[tuple[Phase, int], ...] = (("ED", 1), ("ES", es_frame))
    for phase, frame in phases:
        signal, labels = render(patient, phase, spec.scanner)
        stem = f"{name}_frame{frame:02d}"
        (home / f"{stem}.nii").write_bytes(_nifti(acquire(signal, spec.scanner, rng), spec))
        (home / f"{stem}_gt.nii").write_bytes(_nifti(labels, spec))
    (home / "Info.cfg").write_text(_info(patient, spec, es_frame, rng), newline="\n")


def _info(patient: Patient, spec: SiteSpec, es_frame: int, rng: np.random.Generator) -> str:
    height_cm, weight_kg = between(rng, 155, 190), between(rng, 52, 98)
    lines = (
        "ED: 1",
        f"ES: {es_frame}",
        f"Group: {patient.heart.group}",
        f"{spec.height_key}: {height_cm:.1f}",
        f"NbFrame: {int(rng.integers(25, 31))}",
        f"Weight: {weight_kg:.1f}",
    )
    return "\n".join(lines) + "\n"


def _nifti(screen: NDArray[np.int16] | NDArray[np.uint8], spec: SiteSpec) -> bytes:
    """A NIfTI-1 file of a ``(Z, Y, X)`` stack as seen on the screen, stored along the hospital's axes."""
    stored = screen.transpose(2, 1, 0)
    stored = stored[tuple(slice(None, None, -1 if flip else 1) for flip in spec.flips)]
    spacing = (spec.scanner.spacing_mm, spec.scanner.spacing_mm, spec.scanner.pitch_mm)
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(stored.shape)
    header["pixdim"][:4] = (1.0, *spacing)
    header["xyzt_units"], header["vox_offset"], header["magic"] = 2, 352, b"n+1"
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    _orient(header, spec.quaternion, spacing, stored.shape)
    body = stored.astype(stored.dtype.newbyteorder("<")).tobytes(order="F")
    return bytes(header.binaryblock) + b"\0\0\0\0" + body


def _orient(
    header: nib.Nifti1Header,
    quaternion: tuple[float, float, float],
    spacing_mm: tuple[float, float, float],
    shape: tuple[int, ...],
) -> None:
    """Fill qform and sform by hand, the volume's centre at 0: nibabel would go through LAPACK."""
    b, c, d = quaternion
    a = float(np.sqrt(max(0.0, 1 - (b * b + c * c + d * d))))
    rotation = (
        (a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)),
        (2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)),
        (2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c),
    )
    header["qform_code"] = header["sform_code"] = 1
    header["quatern_b"], header["quatern_c"], header["quatern_d"] = quaternion
    for axis, row in enumerate(rotation):
        steps = [row[i] * spacing_mm[i] for i in range(3)]
        offset = 0.0
        for i in range(3):
            offset = offset - steps[i] * (shape[i] - 1) / 2
        header[f"srow_{'xyz'[axis]}"] = (*steps, offset)
        header[f"qoffset_{'xyz'[axis]}"] = offset


def _put_in_place(fresh: Path, root: Path) -> None:
    """Rename ``fresh`` to ``root``; what is already there must be the same."""
    if root.is_dir() and not any(root.iterdir()):
        root.rmdir()
    if not root.exists():
        fresh.rename(root)
    elif not _same(fresh, root):
        raise CohortError(
            "the folder holds something that is not the synthetic cohort",
            str(root),
            "choose a new folder, or move what is there away",
        )


def _same(fresh: Path, root: Path) -> bool:
    """Whether both trees hold the same files with the same bytes."""
    ours = {path.relative_to(fresh) for path in fresh.rglob("*")}
    theirs = {path.relative_to(root) for path in root.rglob("*")}
    if ours != theirs:
        return False
    files = [str(path) for path in ours if (fresh / path).is_file()]
    return filecmp.cmpfiles(fresh, root, files, shallow=False)[0] == files
