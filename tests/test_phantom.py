"""The synthetic cohort: the same bytes everywhere, hearts of believable size, truth that can be computed."""

from __future__ import annotations

import ast
import hashlib
import math
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import voxel_sizes

from model import exact
from model.errors import CohortError, DataError, DiskError
from model.labels import LV, MYO, RV
from model.phantom import draw_patient, render, volumes_ml
from model.phantom_anatomy import GROUPS, Phase, draw_heart
from model.phantom_contour import Contour
from model.scanner import FLAT_CONTRAST, HARD_CONTRAST, SURFACE_COIL, TEXTBOOK, Scanner, acquire
from tasks.cohort import SITES, SiteSpec, TrueVolumes, true_volumes, write_cohort, write_patient

ROOT = Path(__file__).parents[1]
EXACT_FILES = (
    "model/exact.py",
    "model/phantom.py",
    "model/phantom_anatomy.py",
    "model/phantom_canvas.py",
    "model/phantom_contour.py",
    "model/phantom_torso.py",
    "model/scanner.py",
    "tasks/cohort.py",
)
NUMPY_ALLOWED = {
    "abs", "arange", "asarray", "clip", "empty", "float64", "floating", "floor", "full_like", "int16", "int64",
    "maximum", "minimum", "ndarray", "random", "repeat", "rint", "sqrt", "stack", "take", "uint8", "where",
    "zeros", "zeros_like",
}  # fmt: skip
METHODS_REFUSED = {
    "cumsum", "dot", "mean", "prod", "round", "std", "sum", "var", "normal", "standard_normal", "uniform", "choice",
    "exponential", "permutation", "shuffle",
}  # fmt: skip
PHASES: tuple[Phase, ...] = ("ED", "ES")
IMPORTS_REFUSED = {"math", "cmath", "scipy", "torch", "numpy.linalg", "numpy.fft"}
PATIENT_001_SHA256 = "4fa16729e5f43d8c73024c93198db811497a4d5421d93bf069ab8d9840747926"
COHORT_SHA256 = "8be2213174ddcdbef23a20c76bb5bd3ea085ac6cb32bb47713527dc6d89ed657"


def _tree_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _breaches(source: str) -> list[str]:
    """What breaks the rule of ``model/exact.py`` in a module's source."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="np"), attr=name) if name not in NUMPY_ALLOWED:
                found.append(f"np.{name}")
            case ast.Attribute(attr=name) if name in METHODS_REFUSED:
                found.append(f".{name}")
            case ast.BinOp(op=ast.Pow() | ast.MatMult()) | ast.AugAssign(op=ast.Pow() | ast.MatMult()):
                found.append("** or @")
            case ast.Import(names=names) if any(alias.name in IMPORTS_REFUSED for alias in names):
                found.append(f"import {names[0].name}")
            case ast.ImportFrom(module=str(module)) if module in IMPORTS_REFUSED or module == "numpy":
                found.append(f"from {module}")
    return found


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published") / "data"
    write_cohort(root)
    return root


@pytest.mark.parametrize("name", EXACT_FILES)
def test_cohort_code_uses_exact_operations_only(name: str) -> None:
    assert _breaches((ROOT / name).read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "np.sin(x)",
        "x.sum()",
        "np.mean(x)",
        "x ** 2",
        "a @ b",
        "rng.normal()",
        "import math",
        "rng.uniform(0, 1)",
    ],
)
def test_the_walk_finds_a_breach(line: str) -> None:
    assert _breaches(line)


def test_one_patient_has_the_published_bytes(tmp_path: Path) -> None:
    write_patient(SITES[0], 1, tmp_path)
    assert _tree_sha256(tmp_path) == PATIENT_001_SHA256


def test_the_cohort_has_the_published_bytes(cohort: Path) -> None:
    assert _tree_sha256(cohort) == COHORT_SHA256


def test_the_cohort_is_of_moderate_size_with_unique_patients(cohort: Path) -> None:
    files = [path for path in cohort.rglob("*") if path.is_file()]
    patients = [path.name for path in cohort.glob("*/*")]
    assert 30e6 < sum(path.stat().st_size for path in files) < 50e6
    assert len(patients) == len(set(patients)) == 36
    assert {p.name: len(list(p.iterdir())) for p in cohort.iterdir()} == {
        "st-anna": 12, "riverside": 9, "hillcrest": 8, "lakeside": 7,
    }  # fmt: skip
    assert not [path for path in cohort.parent.iterdir() if path != cohort]


@pytest.fixture
def one_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cohort shrinks to one patient."""
    monkeypatch.setattr("tasks.cohort.SITES", (replace(SITES[3], groups=("NOR",)),))


@pytest.mark.usefixtures("one_patient")
def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    first = write_cohort(tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert write_cohort(tmp_path / "data") == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before


@pytest.mark.usefixtures("one_patient")
def test_a_changed_byte_is_refused_and_left(tmp_path: Path) -> None:
    write_cohort(tmp_path / "data")
    changed = next(tmp_path.rglob("Info.cfg"))
    changed.write_text(changed.read_text().replace("ED: 1", "ED: 2"))
    with pytest.raises(CohortError, match="not the synthetic cohort"):
        write_cohort(tmp_path / "data")
    assert changed.read_text().startswith("ED: 2")


@pytest.mark.usefixtures("one_patient")
def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (site,) = write_cohort(tmp_path)
    assert site.folder == tmp_path / "lakeside"
    assert [path.name for path in tmp_path.iterdir()] == ["lakeside"]


@pytest.mark.usefixtures("one_patient")
def test_a_folder_with_other_files_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    with pytest.raises(CohortError, match="not the synthetic cohort"):
        write_cohort(tmp_path / "data")
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "mine.txt"]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tasks.cohort.write_patient", full)
    with pytest.raises(DiskError, match="No space left"):
        write_cohort(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spec", SITES, ids=[spec.name for spec in SITES])
def test_every_orientation_comes_back_to_the_same_screen(cohort: Path, spec: SiteSpec) -> None:
    """The RV lies on the patient's right of the LV and the base above the apex, whatever the storage order."""
    path = sorted((cohort / spec.name).glob("*/*_frame01_gt.nii"))[0]
    labels = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)
    right, left = (np.argwhere(labels == value).mean(0) for value in (RV, LV))
    assert right[0] > left[0] + 10
    assert right[1] > left[1]
    assert right[2] > left[2]


def test_image_and_mask_share_geometry_and_both_forms_agree(cohort: Path) -> None:
    for mask in cohort.glob("*/*/*_gt.nii"):
        a, b = nib.load(mask), nib.load(mask.with_name(mask.name.replace("_gt", "")))
        assert np.array_equal(a.affine, b.affine)
        assert a.shape == b.shape
        assert np.allclose(a.get_sform(), a.get_qform(), atol=1e-3)
        assert (a.get_data_dtype(), b.get_data_dtype()) == (np.uint8, np.int16)
        assert np.allclose(voxel_sizes(a.affine), a.header.get_zooms(), atol=1e-4)


def test_info_files_name_both_frames_and_one_site_writes_height_its_own_way(cohort: Path) -> None:
    for info in cohort.glob("*/*/Info.cfg"):
        fields = dict(line.split(": ") for line in info.read_text().splitlines())
        height = "patient's Height" if info.parts[-3] == "riverside" else "Height"
        assert list(fields) == ["ED", "ES", "Group", height, "NbFrame", "Weight"]
        frames = sorted(path.name for path in info.parent.glob("*.nii"))
        assert f"{info.parent.name}_frame{int(fields['ES']):02d}.nii" in frames
        assert len(frames) == 4


def _measured_ml(path: Path) -> float:
    image = nib.load(path)
    voxel_mm3 = float(np.prod(image.header.get_zooms()))
    return float((np.asarray(image.dataobj) == LV).sum()) * voxel_mm3 / 1000


def test_masks_measure_the_true_volumes(cohort: Path) -> None:
    for spec in SITES:
        for truth in true_volumes(spec):
            ed, es = sorted((cohort / spec.name / truth.patient).glob("*_gt.nii"))
            assert _measured_ml(ed) == pytest.approx(truth.edv_ml, rel=0.02)
            assert _measured_ml(es) == pytest.approx(truth.esv_ml, rel=0.04)


EF_PERCENT = {"NOR": (52, 74), "DCM": (15, 40), "HCM": (55, 78), "MINF": (30, 52), "RV": (44, 70)}
EDV_ML = {"NOR": (90, 180), "DCM": (200, 350), "HCM": (60, 130), "MINF": (130, 260), "RV": (75, 130)}


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_has_its_clinical_volumes(group: str) -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        truth = TrueVolumes("p", group, *volumes_ml(draw_patient(group, 10, rng), TEXTBOOK))
        assert EDV_ML[group][0] < truth.edv_ml < EDV_ML[group][1]
        assert EF_PERCENT[group][0] < truth.ef_percent < EF_PERCENT[group][1]


def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(DataError, match="XYZ"):
        draw_heart("XYZ", np.random.default_rng(0))


def test_the_wall_closes_around_the_cavity() -> None:
    """A cavity pixel touches cavity or wall, never background or RV."""
    patient = draw_patient("MINF", TEXTBOOK.slices, np.random.default_rng(1))
    for phase in PHASES:
        _, labels = render(patient, phase, TEXTBOOK)
        cavity = labels == LV
        for axis in (1, 2):
            for step in (-1, 1):
                beside = np.roll(labels, step, axis)[cavity]
                assert set(np.unique(beside)) <= {LV, MYO}


def test_an_infarct_moves_less_than_the_wall_opposite() -> None:
    patient = draw_patient("MINF", TEXTBOOK.slices, np.random.default_rng(3))
    s, c = exact.sin_cos(patient.heart.scar_rad)
    still, moving = [], []
    for phase in PHASES:
        _, labels = render(patient, phase, TEXTBOOK)
        slice_ = labels[TEXTBOOK.slices // 2]
        side, spacing = TEXTBOOK.size_px, TEXTBOOK.spacing_mm
        shift = patient.shifts_mm[TEXTBOOK.slices // 2]
        y, x = (
            (np.arange(side) - (side - 1) / 2) * spacing - at - d
            for at, d in zip(patient.at_mm, shift, strict=True)
        )
        along = (y[:, None] * s + x[None, :] * c)[slice_ == LV]
        still.append(along.max())
        moving.append(-along.min())
    assert moving[0] - moving[1] > 3 * (still[0] - still[1])


@pytest.mark.parametrize("scanner", [TEXTBOOK, SURFACE_COIL, FLAT_CONTRAST, HARD_CONTRAST])
def test_blood_stays_brighter_than_the_wall(scanner: Scanner) -> None:
    rng = np.random.default_rng(2)
    signal, labels = render(draw_patient("NOR", scanner.slices, rng), "ED", scanner)
    image = acquire(signal, scanner, rng)
    assert image.dtype == np.int16
    assert image[labels == LV].mean() > 1.25 * image[labels == MYO].mean()


def test_a_contours_area_is_what_its_pixels_cover() -> None:
    contour = Contour(1.5, -2.0, (20.0, 1.0, 3.0, 0.5), (0.5, -2.0, 1.0))
    grid = np.arange(-40, 40, 0.1)
    y, x = np.meshgrid(grid, grid, indexing="ij")
    assert (contour.beyond_mm(y, x) < 0).sum() * 0.01 == pytest.approx(contour.area_mm2(), rel=1e-3)


def test_a_circles_area_is_pi_r_squared() -> None:
    assert Contour(0, 0, (3.0,)).area_mm2() == pytest.approx(math.pi * 9)


def test_own_sine_and_cosine_agree_with_the_library() -> None:
    for angle in np.linspace(-20, 20, 401):
        assert exact.sin_cos(float(angle)) == pytest.approx((math.sin(angle), math.cos(angle)), abs=1e-12)


def test_fall_off_is_close_to_a_gaussian() -> None:
    x = np.linspace(0, 3, 50)
    assert np.abs(exact.fall_off(x) - np.exp(-x * x)).max() < 0.06


def test_blur_keeps_a_constant_and_has_the_promised_variance() -> None:
    assert np.array_equal(exact.blur(np.full((3, 8, 8), 7.0), 2), np.full((3, 8, 8), 7.0))
    spike = np.zeros((41, 41))
    spike[20, 20] = 1
    across = exact.blur(spike, 6).sum(0)
    assert (across * (np.arange(41) - 20.0) ** 2).sum() == pytest.approx(3.0)


def test_bell_noise_has_zero_mean_and_unit_variance() -> None:
    noise = exact.bell(np.random.default_rng(0), (200, 200))
    assert abs(noise.mean()) < 0.02
    assert noise.std() == pytest.approx(1, abs=0.02)
