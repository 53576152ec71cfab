"""A data set in ACDC layout: what is read, every fault by its kind, and how sites are formed."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantom_files import (
    SPACING_XYZ_MM,
    as_uncompressed,
    overwrite_header,
    overwrite_spacing,
    write_group,
    write_patient,
)

from model.errors import (
    CohortError,
    ConfigError,
    DataError,
    GeometryError,
    IntensityError,
    LabelError,
    PairError,
    PhaseError,
    UnreadableError,
)
from model.labels import LV, RV
from tasks.importers.acdc import read_acdc
from tasks.sites import form_sites, safe_name

IMAGE, MASK = "patient001_frame01.nii.gz", "patient001_frame01_gt.nii.gz"


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    return write_patient(tmp_path / "patient001", seed=1)


def _rewrite(path: Path, write: Callable[[np.ndarray], nib.Nifti1Image]) -> None:
    nib.save(write(np.asarray(nib.load(path).dataobj)), path)


def _change(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    affine = nib.load(path).affine
    _rewrite(path, lambda v: nib.Nifti1Image(change(v), affine))


def _edit_info(patient: Path, old: str, new: str) -> None:
    info = patient / "Info.cfg"
    text = info.read_text()
    assert old in text
    info.write_text(text.replace(old, new))


def test_patients_are_found_at_any_depth_by_folder_name(tmp_path: Path) -> None:
    write_patient(tmp_path / "b" / "deep" / "patient001", seed=1, group="DCM")
    write_patient(tmp_path / "a" / "patient002", seed=2)
    first, second = read_acdc(tmp_path)
    assert (first.folder_id, first.group, second.folder_id) == ("patient001", "DCM", "patient002")
    assert first.ed.image.name == "patient001_frame01.nii.gz"
    assert first.es.mask.name == "patient001_frame03_gt.nii.gz"


def test_header_variants_are_tolerated(patient: Path) -> None:
    (patient / "Info.cfg").write_text("ed: 1  \nES : 3\n\ngroup: NOR \npatient's Height: 170\nVendor: GE\n")
    as_uncompressed(patient / IMAGE)
    (found,) = read_acdc(patient.parent)
    assert (found.group, found.vendor, found.centre) == ("NOR", "GE", "unknown")


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    write_patient(tmp_path / "store" / "patient001", seed=1)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "site").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "data")
    assert len(read_acdc(tmp_path / "data")) == 1


def _no_mask(patient: Path) -> None:
    (patient / MASK).unlink()


def _no_image(patient: Path) -> None:
    (patient / IMAGE).unlink()


def _no_frame(patient: Path) -> None:
    _no_mask(patient)
    _no_image(patient)


def _two_images(patient: Path) -> None:
    nib.save(nib.load(patient / IMAGE), patient / "patient001_frame1.nii")


def _other_shape(patient: Path) -> None:
    _change(patient / MASK, lambda v: v[:-1])


def _other_affine(patient: Path) -> None:
    image = nib.load(patient / MASK)
    affine = image.affine.copy()
    affine[0, 3] += 4
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), patient / MASK)


def _zero_spacing(patient: Path) -> None:
    overwrite_spacing(as_uncompressed(patient / IMAGE), 0.0)


def _nan_spacing(patient: Path) -> None:
    overwrite_spacing(as_uncompressed(patient / IMAGE), float("nan"))


def _spacing_against_affine(patient: Path) -> None:
    overwrite_spacing(as_uncompressed(patient / IMAGE), 1.0)


def _four_axes(patient: Path) -> None:
    _change(patient / IMAGE, lambda v: np.stack([v, v], -1))


def _no_spacing(patient: Path) -> None:
    _rewrite(patient / IMAGE, lambda v: nib.Nifti1Image(v, None))


def _no_voxels(patient: Path) -> None:
    _change(patient / MASK, lambda v: v[:0])


def _impossible_size(patient: Path) -> None:
    overwrite_header(patient / IMAGE, 42, struct.pack("<3h", 32767, 32767, 32767))


def _unknown_dtype(patient: Path) -> None:
    overwrite_header(patient / IMAGE, 70, struct.pack("<h", 255))


def _voxels_nowhere(patient: Path) -> None:
    overwrite_header(as_uncompressed(patient / IMAGE), 108, struct.pack("<f", float("inf")))


def _other_phase_grid(patient: Path) -> None:
    for name in (IMAGE, MASK):
        _change(patient / name, lambda v: v[:-1])


def _unknown_label(patient: Path) -> None:
    _change(patient / MASK, lambda v: np.where(v == 3, 7, v).astype(np.uint8))


def _soft_mask(patient: Path) -> None:
    _change(patient / MASK, lambda v: (v * 0.5).astype(np.float32))


def _nan_mask(patient: Path) -> None:
    _change(patient / MASK, lambda v: np.where(v == 3, np.nan, v).astype(np.float32))


def _colour(patient: Path, name: str) -> None:
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    _change(patient / name, lambda v: np.repeat(v.astype(np.uint8)[..., None], 3, -1).view(rgb)[..., 0])


def _colour_image(patient: Path) -> None:
    _colour(patient, IMAGE)


def _colour_mask(patient: Path) -> None:
    _colour(patient, MASK)


def _complex_image(patient: Path) -> None:
    _change(patient / IMAGE, lambda v: v.astype(np.complex64))


def _complex_mask(patient: Path) -> None:
    _change(patient / MASK, lambda v: v.astype(np.complex64))


def _blank_ed_mask(patient: Path) -> None:
    _change(patient / MASK, np.zeros_like)


def _blank_es_mask(patient: Path) -> None:
    _change(patient / MASK.replace("frame01", "frame03"), np.zeros_like)


def _ed_mask_without_lv(patient: Path) -> None:
    _change(patient / MASK, lambda v: np.where(v == LV, 0, v))


def _ed_mask_of_rv_alone(patient: Path) -> None:
    _change(patient / MASK, lambda v: np.where(v == RV, RV, 0).astype(np.uint8))


def _nan_image(patient: Path) -> None:
    _change(patient / IMAGE, lambda v: np.where(v > 300, np.nan, v).astype(np.float32))


def _infinite_image(patient: Path) -> None:
    _change(patient / IMAGE, lambda v: np.where(v > 300, np.inf, v).astype(np.float32))


def _constant_image(patient: Path) -> None:
    _change(patient / IMAGE, lambda v: np.full_like(v, 5))


def _cut_off(patient: Path) -> None:
    data = (patient / IMAGE).read_bytes()
    (patient / IMAGE).write_bytes(data[: len(data) // 2])


def _cut_off_inside_gzip(patient: Path) -> None:
    data = gzip.decompress((patient / IMAGE).read_bytes())
    (patient / IMAGE).write_bytes(gzip.compress(data[: len(data) // 2]))


def _empty_file(patient: Path) -> None:
    (patient / IMAGE).write_bytes(b"")


def _foreign_file(patient: Path) -> None:
    (patient / IMAGE).write_bytes(gzip.compress(b"<html>404</html>" * 99))


def _same_frame(patient: Path) -> None:
    _edit_info(patient, "ES: 3", "ES: 1")


def _same_picture(patient: Path) -> None:
    shutil.copy(patient / IMAGE, patient / IMAGE.replace("01.nii", "03.nii"))


def _no_ed(patient: Path) -> None:
    _edit_info(patient, "ED: 1", "")


def _frame_beyond_the_last(patient: Path) -> None:
    _edit_info(patient, "NbFrame: 5", "NbFrame: 2")


def _ed_no_number(patient: Path) -> None:
    _edit_info(patient, "ED: 1", "ED: first")


def _frame_number_without_end(patient: Path) -> None:
    _edit_info(patient, "ED: 1", "ED: " + "1" * 5000)


def _no_group(patient: Path) -> None:
    _edit_info(patient, "Group: NOR", "")


def _dead_link(patient: Path) -> None:
    (patient / "more").symlink_to(patient / "unmounted")


def _name_not_utf8(patient: Path) -> None:
    (patient / os.fsdecode(b"report\xff.pdf")).write_bytes(b"")


def _folder_not_utf8(patient: Path) -> None:
    patient.rename(patient.with_name(os.fsdecode(b"patient001\xff")))


def _no_info(patient: Path) -> None:
    (patient / "Info.cfg").unlink()


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (_no_mask, PairError, "image without mask"),
        (_no_image, PairError, "mask without image"),
        (_two_images, PairError, "2 images"),
        (_no_frame, PhaseError, "neither image nor mask of frame 1"),
        (_other_shape, GeometryError, "voxels, its image"),
        (_other_affine, GeometryError, "4.0 mm away"),
        (_zero_spacing, GeometryError, "spacing (0.0"),
        (_nan_spacing, GeometryError, "spacing (nan"),
        (_spacing_against_affine, GeometryError, "in pixdim and"),
        (_no_spacing, GeometryError, "no spacing stored"),
        (_no_voxels, GeometryError, "no voxel"),
        (_impossible_size, UnreadableError, "cannot be read"),
        (_unknown_dtype, UnreadableError, "data code 255"),
        (_voxels_nowhere, UnreadableError, "cannot be read"),
        (_four_axes, GeometryError, "not 3-D"),
        (_other_phase_grid, GeometryError, "ED and ES lie on different grids"),
        (_unknown_label, LabelError, "[7.0] outside 0…3"),
        (_soft_mask, LabelError, "not integers"),
        (_nan_mask, LabelError, "not integers"),
        (_colour_image, IntensityError, "not one real number each"),
        (_colour_mask, LabelError, "not one real number each"),
        (_complex_image, IntensityError, "complex64"),
        (_complex_mask, LabelError, "complex64"),
        (_blank_ed_mask, LabelError, "an ED mask that marks nothing"),
        (_blank_es_mask, LabelError, "an ES mask that marks nothing"),
        (_ed_mask_without_lv, LabelError, "marks no LV"),
        (_ed_mask_of_rv_alone, LabelError, "marks no MYO and no LV"),
        (_nan_image, IntensityError, "NaN"),
        (_infinite_image, IntensityError, "infinite"),
        (_constant_image, IntensityError, "every voxel is 5"),
        (_cut_off, UnreadableError, "cannot be read"),
        (_cut_off_inside_gzip, UnreadableError, "cannot be read"),
        (_empty_file, UnreadableError, "cannot be read"),
        (_foreign_file, UnreadableError, "cannot be read"),
        (_same_frame, PhaseError, "both frame 1"),
        (_same_picture, PhaseError, "same picture"),
        (_no_ed, PhaseError, "no 'ED'"),
        (_frame_beyond_the_last, PhaseError, "frame 3 of 2"),
        (_ed_no_number, PhaseError, "'first'"),
        (_frame_number_without_end, PhaseError, "not a frame number"),
        (_dead_link, UnreadableError, "leads nowhere"),
        (_name_not_utf8, DataError, "not UTF-8"),
        (_folder_not_utf8, DataError, "not UTF-8"),
        (_no_group, CohortError, "no 'Group'"),
        (_no_info, PhaseError, "no Info.cfg"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_fault_is_named_where_it_is(
    patient: Path, spoil: Callable[[Path], None], kind: type[DataError], said: str
) -> None:
    spoil(patient)
    with pytest.raises(kind) as caught:
        read_acdc(patient.parent)
    assert type(caught.value) is kind
    assert said in caught.value.what
    assert "patient001" in caught.value.where
    assert caught.value.mend
    str(caught.value).encode()


def test_an_rv_may_be_absent(patient: Path) -> None:
    for path in patient.glob("*_gt.nii.gz"):
        _change(path, lambda v: np.where(v == RV, 0, v))
    assert len(read_acdc(patient.parent)) == 1


def test_a_file_with_spacing_but_no_affine_is_tolerated(patient: Path) -> None:
    for path in patient.glob("*.nii.gz"):
        _rewrite(path, _with_pixdim_alone)
    assert len(read_acdc(patient.parent)) == 1


def _with_pixdim_alone(values: np.ndarray) -> nib.Nifti1Image:
    image = nib.Nifti1Image(values, None)
    image.header.set_zooms(SPACING_XYZ_MM)
    return image


def test_a_folder_that_cannot_be_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_group(tmp_path / "riverside", "NOR", 1, first=1)
    write_group(tmp_path / "st-anna", "NOR", 1, first=2)
    shut, scandir = tmp_path / "st-anna", os.scandir

    def guarded(path: str | Path) -> Iterator[os.DirEntry[str]]:  # the superuser may enter every folder
        if Path(path) == shut:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(UnreadableError, match="Permission denied") as caught:
        read_acdc(tmp_path)
    assert caught.value.where == str(shut)
    assert caught.value.mend


def test_a_data_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="No such file") as caught:
        read_acdc(tmp_path / "gone")
    assert caught.value.where == str(tmp_path / "gone")


def test_all_faults_of_a_data_set_are_reported_at_once(tmp_path: Path) -> None:
    for number, spoil in enumerate((_no_mask, _constant_image, _no_group)):
        spoil(write_patient(tmp_path / str(number) / "patient001", seed=number))
    with pytest.raises(DataError) as caught:
        read_acdc(tmp_path)
    assert type(caught.value) is DataError
    for said in ("5 faults", "without mask", "constant", "no 'Group'", "stands also at"):
        assert said in caught.value.what


def test_no_patients_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no patient"):
        read_acdc(tmp_path)


def test_a_site_per_group(tmp_path: Path) -> None:
    write_group(tmp_path, "NOR", 3, first=1)
    write_group(tmp_path, "DCM", 3, first=4)
    sites = form_sites(read_acdc(tmp_path), "group", tmp_path)
    assert {site: [each.folder_id[-1] for each in members] for site, members in sites.items()} == {
        "dcm": ["4", "5", "6"],
        "nor": ["1", "2", "3"],
    }


def test_a_site_per_first_folder(tmp_path: Path) -> None:
    write_group(tmp_path / "St. Anna" / "export", "NOR", 3, first=1)
    assert list(form_sites(read_acdc(tmp_path), "folder", tmp_path)) == ["st-anna"]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("four")
    write_group(root, "NOR", 4, first=1)
    return root


def _table(path: Path, sites: list[str], first: int = 1) -> str:
    rows = [f"patient{number:03d},{site}" for number, site in enumerate(sites, start=first)]
    path.write_text("\n".join(["patient,Hospital", *rows]) + "\n")
    return f"csv:{path}:Hospital"


def test_a_site_per_value_of_a_column(four: Path, tmp_path: Path) -> None:
    how = _table(tmp_path / "sites.csv", ["Hôpital A"] * 4)
    assert list(form_sites(read_acdc(four), how, four)) == ["hopital-a"]


def test_all_patients_at_one_named_site(four: Path) -> None:
    assert len(form_sites(read_acdc(four), "site:st-anna", four)["st-anna"]) == 4


@pytest.mark.parametrize(
    ("sites", "first", "said"),
    [
        (["a"] * 5, 1, "unknown patients: patient005"),
        (["a"] * 3, 1, "misses patients: patient004"),
        (["a", "a", "a", "b"], 1, "b has 1"),
        (["a", "a", "A!", "a"], 1, "would both be called 'a'"),
        (["a", "a", "", "a"], 1, "has no site"),
        (["a", "a", "***", "a"], 1, "has no letter"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    four: Path, tmp_path: Path, sites: list[str], first: int, said: str
) -> None:
    with pytest.raises(CohortError) as caught:
        form_sites(read_acdc(four), _table(tmp_path / "sites.csv", sites, first), four)
    assert said in caught.value.what


def test_a_patient_at_two_sites_of_a_table_is_refused(four: Path, tmp_path: Path) -> None:
    how = _table(tmp_path / "sites.csv", ["a"] * 4)
    with (tmp_path / "sites.csv").open("a") as file:
        file.write("patient002,b\n")
    with pytest.raises(CohortError, match="two sites"):
        form_sites(read_acdc(four), how, four)


def test_one_image_under_two_names_is_refused(tmp_path: Path) -> None:
    write_group(tmp_path / "a", "NOR", 3, first=1)
    write_group(tmp_path / "b", "NOR", 3, first=4)
    twin = tmp_path / "b" / "patient004"
    for name in ("frame01", "frame01_gt"):  # the same scan, packed otherwise
        shutil.copy(
            tmp_path / "a" / "patient001" / f"patient001_{name}.nii.gz", twin / f"patient004_{name}.nii.gz"
        )
    as_uncompressed(twin / "patient004_frame01.nii.gz")
    with pytest.raises(CohortError, match="one and the same image"):
        form_sites(read_acdc(tmp_path), "folder", tmp_path)


def test_one_image_exported_twice_is_refused(tmp_path: Path) -> None:
    write_group(tmp_path / "a", "NOR", 3, first=1)
    write_group(tmp_path / "b", "NOR", 3, first=4)
    original = nib.load(tmp_path / "a" / "patient001" / IMAGE)
    again = nib.Nifti1Image(np.asarray(original.dataobj).astype(np.float32), original.affine)
    again.header["descrip"] = b"another console"
    nib.save(again, tmp_path / "b" / "patient004" / "patient004_frame01.nii.gz")
    with pytest.raises(CohortError, match="one and the same image"):
        form_sites(read_acdc(tmp_path), "folder", tmp_path)


def test_one_patient_listed_twice_is_refused(four: Path) -> None:
    patients = read_acdc(four)
    with pytest.raises(CohortError, match="twice"):
        form_sites([*patients, patients[0]], "group", four)


@pytest.mark.parametrize("how", ["", "groups", "csv:only-a-file", "site:"])
def test_unknown_ways_to_form_sites_are_refused(four: Path, how: str) -> None:
    with pytest.raises(ConfigError, match="no way"):
        form_sites(read_acdc(four), how, four)


def test_patients_outside_any_site_folder_are_refused(four: Path) -> None:
    with pytest.raises(CohortError, match="no site folder"):
        form_sites(read_acdc(four), "folder", four)


@pytest.mark.parametrize(
    ("name", "safe"), [("St. Anna / Köln", "st-anna-koln"), ("x" * 60, "x" * 40), ("-7-", "7")]
)
def test_site_names_become_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe
