"""Imports: one layout and label order whatever came in, nothing else of it, and every hostile variant refused."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from import_files import CANARY, MAKE, OBLIQUE, SHAPE, frame, save
from real_files import REAL, needs_real

from model.errors import (
    CardiofedError,
    CohortError,
    ConfigError,
    DataError,
    GeometryError,
    IntensityError,
    KeyFileError,
    LabelError,
    PairError,
    PhaseError,
    UnreadableError,
)
from model.labels import LV, MYO, RV, UNKNOWN
from tasks.importers.canonical import read_imported
from tasks.importers.describe import describe
from tasks.importers.kinds import KINDS, importer_of
from tasks.importers.pseudonyms import KEY_FILE, MAP_FILE, pseudonym
from tasks.importers.write import Imported, import_site

Spoil = Callable[[Path], None]


def bring_in(kind: str, source: Path, out: Path) -> Imported:
    return import_site(KINDS[kind], source, "St. Anna", out)


@pytest.fixture(scope="module", params=sorted(MAKE))
def done(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Imported]:
    kind, root = request.param, tmp_path_factory.mktemp(request.param)
    return kind, root, bring_in(kind, MAKE[kind](root / "in"), root / "out")


def table(out: Path) -> list[dict[str, str]]:
    with (out / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def masks(out: Path) -> dict[str, np.ndarray]:
    return {line["phase"]: np.asarray(nib.load(out / line["mask"]).dataobj) for line in table(out)}


def test_every_kind_ends_in_one_layout(done: tuple[str, Path, Imported]) -> None:
    _, root, imported = done
    lines = table(root / "out")
    assert [line["phase"] for line in lines] == ["ED", "ES"] * imported.patients
    assert {line["site"] for line in lines} == {"st-anna"}
    assert len(read_imported(root / "out")) == imported.patients
    assert describe(root / "out").count("\n") == 1 + len(lines)


def test_no_name_date_or_uid_survives_anywhere(done: tuple[str, Path, Imported]) -> None:
    _, root, _ = done
    secrets = [
        CANARY,
        "JANE",
        "19610203",
        "19990413",
        "1.2.826",
        "HOSPITAL",
        "A0S9V9",
        "heart1",
        "SCD01",
        "patient0",
    ]
    for path in (root / "out").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        packed = gzip.decompress(content) if path.suffix == ".gz" else content
        said = [word for word in secrets if word.encode() in packed or word in path.name]
        assert not said, path
        if path.suffix == ".gz":
            assert content[3] == 0 and content[4:8] == bytes(4)  # gzip: no file name, no time
            header = nib.load(path).header
            words = [
                bytes(header[name]).strip(b"\0") for name in ("descrip", "aux_file", "db_name", "intent_name")
            ]
            assert not any(words) and not header.extensions


def test_the_site_finds_its_patient_again_and_nobody_else_may_look(done: tuple[str, Path, Imported]) -> None:
    _, root, _ = done
    private = root / "out-private"
    key = bytes.fromhex((private / KEY_FILE).read_text())
    assert {path.stat().st_mode & 0o777 for path in private.iterdir()} == {0o600}
    with (private / MAP_FILE).open(newline="") as file:
        known = {line["patient"]: line["name"] for line in csv.DictReader(file)}
    assert {line["patient"] for line in table(root / "out")} == set(known)
    assert all(pseudonym(key, name) == patient for patient, name in known.items())


def test_again_gives_the_same_bytes_and_another_key_other_ids(done: tuple[str, Path, Imported]) -> None:
    kind, root, _ = done
    before = {path.name: path.read_bytes() for path in (root / "out").rglob("*.gz")}
    ids = {line["patient"] for line in table(root / "out")}
    bring_in(kind, root / "in", root / "out")
    assert {path.name: path.read_bytes() for path in (root / "out").rglob("*.gz")} == before
    import_site(KINDS[kind], root / "in", "b", root / "other")
    assert not ids & {line["patient"] for line in table(root / "other")}


@pytest.mark.parametrize("kind", ["mnms", "nifti"])
def test_labels_come_into_the_federations_order_on_the_oblique_grid(kind: str, tmp_path: Path) -> None:
    bring_in(kind, MAKE[kind](tmp_path / "in"), tmp_path / "out")
    for phase, mm in (("ED", 12.0), ("ES", 8.0)):
        assert np.array_equal(masks(tmp_path / "out")[phase], frame(mm, 0)[1])
    image = nib.load(tmp_path / "out" / table(tmp_path / "out")[0]["image"])
    assert np.allclose(image.affine, OBLIQUE, atol=1e-4)


def test_a_mask_on_turned_axes_lands_on_its_dicom_image(tmp_path: Path) -> None:
    bring_in("dicom", MAKE["dicom"](tmp_path / "in"), tmp_path / "out")
    mask = masks(tmp_path / "out")["ED"]
    assert (mask[6:10, 6:10, 1:4] == LV).all() and (mask[13:16, 4:12, 1:4] == RV).all()
    assert mask[4, 4, 1] == MYO and mask[0, 0, 0] == 0


def test_dicom_without_masks_is_imported_as_unknown_and_es_is_what_differs_most(tmp_path: Path) -> None:
    source = MAKE["dicom"](tmp_path / "in")
    for path in (*source.rglob("*_mask.nii.gz"), source / "phases.csv"):
        path.unlink()
    bring_in("dicom", source, tmp_path / "out")
    assert {line["labels"] for line in table(tmp_path / "out")} == {""}
    assert (masks(tmp_path / "out")["ES"] == UNKNOWN).all()
    es = next(line for line in table(tmp_path / "out") if line["phase"] == "ES")
    assert nib.load(tmp_path / "out" / es["image"]).get_fdata()[0, 0, 0] == 3000 + 40 * 9


def test_sunnybrook_keeps_what_was_drawn_and_calls_the_rest_unknown(tmp_path: Path) -> None:
    bring_in("sunnybrook", MAKE["sunnybrook"](tmp_path / "in"), tmp_path / "out")
    labels = {line["phase"]: line["labels"] for line in table(tmp_path / "out")}
    assert labels == {"ED": "MYO LV", "ES": "LV"}
    for mask in masks(tmp_path / "out").values():
        assert [bool((mask[..., z] == UNKNOWN).all()) for z in range(5)] == [True, False, False, False, True]
        assert not (mask[..., 1:4] == UNKNOWN).any()


def test_risks_are_told_without_the_words_behind_them(tmp_path: Path) -> None:
    risks = bring_in("dicom", MAKE["dicom"](tmp_path / "in"), tmp_path / "out").risks
    (said,) = risks.values()
    assert any("private tags of no scanner" in line for line in said)
    assert "HOSPITAL" not in repr(risks) and "DOE" not in repr(risks)


def test_an_importer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no known kind"):
        importer_of("nrrd")


def change(path: str, to: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> Spoil:
    def spoil(root: Path) -> None:
        (file,) = root.glob(path)
        image = nib.load(file)
        values = to(np.asanyarray(image.dataobj))
        nib.save(nib.Nifti1Image(values, image.affine if affine is None else affine), file)

    return spoil


def remove(path: str) -> Spoil:
    def spoil(root: Path) -> None:
        for found in list(root.glob(path)):
            shutil.rmtree(found) if found.is_dir() else found.unlink()

    return spoil


def text(path: str, old: str, new: str) -> Spoil:
    def spoil(root: Path) -> None:
        (file,) = root.glob(path)
        before = file.read_text()
        assert old in before
        file.write_text(before.replace(old, new))

    return spoil


def bytes_of(path: str, to: Callable[[bytes], bytes]) -> Spoil:
    def spoil(root: Path) -> None:
        (file,) = root.glob(path)
        file.write_bytes(to(file.read_bytes()))

    return spoil


def labels_json(labels: object) -> Spoil:
    return lambda root: (root / "dataset.json").write_text(json.dumps({"labels": labels})) and None


def copy(old: str, new: str) -> Spoil:
    def spoil(root: Path) -> None:
        (file,) = root.glob(old)
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(file, root / new) if file.is_dir() else shutil.copy(file, root / new)

    return spoil


def slice_gone(root: Path) -> None:
    for number in (2, 7, 12, 17):
        remove(f"*/{number}.dcm")(root)


def flat_first(cine: np.ndarray) -> np.ndarray:
    return np.where(np.arange(3) == 0, 7, cine).astype(cine.dtype)


def far(path: str) -> Spoil:
    moved = OBLIQUE.copy()
    moved[0, 3] += 4
    return change(path, lambda v: v, moved)


def as_float(path: str, value: float) -> Spoil:
    return change(path, lambda v: np.where(v == v.max(), value, v).astype(np.float32))


SA, GT = "A0S9V9/A0S9V9_sa.nii.gz", "A0S9V9/A0S9V9_sa_gt.nii.gz"
ED, ED_MASK, ES = (
    "imagesTr/heart1_ED_0000.nii.gz",
    "labelsTr/heart1_ED.nii.gz",
    "imagesTr/heart1_ES_0000.nii.gz",
)
MASK = "*/ED_mask.nii.gz"
HOSTILE: dict[str, tuple[type[CardiofedError], str, Spoil]] = {
    "mnms: no table": (UnreadableError, "0 CSV files", remove("info.csv")),
    "mnms: two tables": (UnreadableError, "2 CSV files", copy("info.csv", "more.csv")),
    "mnms: table without ES": (UnreadableError, "no column es", text("info.csv", ",ES\n", ",end\n")),
    "mnms: table not text": (UnreadableError, "cannot be read", bytes_of("info.csv", lambda _: b"\xff\xfe\xff")),
    "mnms: subject without row": (CohortError, "without a row", text("info.csv", "A0S9V9", "A0S9V8")),
    "mnms: two rows of one subject": (CohortError, "two rows", text("info.csv", "Z9Z9Z9", "A0S9V9")),
    "mnms: one subject in two folders": (CohortError, "two folders", copy("A0S9V9", "more/A0S9V9")),
    "mnms: ED no number": (PhaseError, "'first'", text("info.csv", "A,1,0,2", "A,1,first,2")),
    "mnms: ES beyond the cine": (PhaseError, "frame 9 of 3", text("info.csv", "A,1,0,2", "A,1,0,9")),
    "mnms: ED negative": (PhaseError, "'-1'", text("info.csv", "A,1,0,2", "A,1,-1,2")),
    "mnms: ED is ES": (PhaseError, "both frame 2", text("info.csv", "A,1,0,2", "A,1,2,2")),
    "mnms: ES not annotated": (LabelError, "marks nothing", text("info.csv", "A,1,0,2", "A,1,0,1")),
    "mnms: no mask": (PairError, "without", remove(GT)),
    "mnms: no image": (PairError, "without", remove(SA)),
    "mnms: image of three axes": (PairError, "frames, the image 1", change(SA, lambda v: v[..., 0])),
    "mnms: mask of fewer frames": (PairError, "the mask has 2 frames", change(GT, lambda v: v[..., :2])),
    "mnms: mask of another shape": (GeometryError, "mask has", change(GT, lambda v: v[:-1])),
    "mnms: mask 4 mm away": (GeometryError, "4.0 mm away", far(GT)),
    "mnms: unknown label": (LabelError, "does not name", change(GT, lambda v: np.where(v == 1, 9, v))),
    "mnms: soft mask": (LabelError, "does not name", change(GT, lambda v: v.astype(np.float32) * 0.5)),
    "mnms: image cut off": (UnreadableError, "cannot be read", bytes_of(SA, lambda b: b[: len(b) // 2])),
    "mnms: image is a page": (UnreadableError, "cannot be read", bytes_of(SA, lambda _: b"<html>404</html>")),
    "mnms: image of NaN": (IntensityError, "NaN", as_float(SA, np.nan)),
    "mnms: image constant": (IntensityError, "constant", change(SA, flat_first)),
    "mnms: image complex": (IntensityError, "one real number", change(SA, lambda v: v.astype(np.complex64))),
    "mnms: spacing of metres": (GeometryError, "spacing", change(SA, lambda v: v, np.diag([90, 90, 90, 1.0]))),
    "nifti: no dataset.json": (UnreadableError, "dataset.json", remove("dataset.json")),
    "nifti: dataset.json cut off": (UnreadableError, "dataset.json", bytes_of("dataset.json", lambda b: b[:9])),
    "nifti: labels a list": (LabelError, "no table", labels_json(["RV", "LV"])),
    "nifti: unknown structure": (LabelError, "'aorta' is no structure", labels_json({"aorta": 1, "LV": 2})),
    "nifti: regions": (LabelError, "not one whole number", labels_json({"LV": [1, 2]})),
    "nifti: one structure twice": (LabelError, "stands twice", labels_json({"LV": 1, "lv cavity": 2})),
    "nifti: no structure": (LabelError, "names no structure", labels_json({"background": 0})),
    "nifti: value without a name": (LabelError, "does not name", labels_json({"background": 0, "LV": 2, "RV": 7})),
    "nifti: no masks": (UnreadableError, "no folder labelsTr", remove("labelsTr")),
    "nifti: no images": (UnreadableError, "no folder imagesTr", remove("imagesTr")),
    "nifti: mask without image": (PairError, "there is no", remove(ED)),
    "nifti: no ES": (PhaseError, "alone", remove("labelsTr/heart1_ES.nii.gz")),
    "nifti: name without phase": (PhaseError, "neither", copy(ED_MASK, "labelsTr/heart2.nii.gz")),
    "nifti: two files of a case": (CohortError, "two files", copy(ED_MASK, "labelsTr/heart1_ED.nii")),
    "nifti: mask on another grid": (GeometryError, "4.0 mm away", far(ED_MASK)),
    "nifti: mask tilted": (GeometryError, "mask", change(ED_MASK, lambda v: v, np.diag([1.6, 1.5, 8, 1.0]))),
    "nifti: ED marks no LV": (LabelError, "no LV", change(ED_MASK, lambda v: np.where(v == 2, 0, v))),
    "nifti: ED image at ES": (PhaseError, "same picture", copy(ED, ES)),
    "nifti: table of strangers": (
        CohortError,
        "alone",
        lambda root: (root / "phases.csv").write_text("case,patient,phase\nx,1,ED\n") and None,
    ),
    "dicom: row of a stranger": (CohortError, "unknown patients", text("phases.csv", CANARY, "someone")),
    "dicom: ES beyond the cine": (PhaseError, "frame 9 of 4", text("phases.csv", ",0,2,", ",0,9,")),
    "dicom: ED is ES": (PhaseError, "both phase 2", text("phases.csv", ",0,2,", ",2,2,")),
    "dicom: table without columns": (UnreadableError, "no column ed and no es", text("phases.csv", "ED,ES", "a,b")),
    "dicom: a mask of ED alone": (PairError, "ED alone", remove("*/ES_mask.nii.gz")),
    "dicom: mask of another size": (GeometryError, "mask has", change(MASK, lambda v: v[:-2])),
    "dicom: mask elsewhere": (GeometryError, "mask", change(MASK, lambda v: v, np.diag([1.25, 1.5, 10, 1.0]))),
    "dicom: unknown label": (LabelError, "does not name", change(MASK, lambda v: v + np.uint8(3) * (v == 1))),
    "dicom: no image": (UnreadableError, "no DICOM", remove("*/*.dcm")),
    "dicom: a slice missing": (GeometryError, "missing or uneven", slice_gone),
    "sunnybrook: no contours": (PairError, "without contours", remove("SCD01_contours")),
    "sunnybrook: no images": (PairError, "without images", remove("SCD01")),
    "sunnybrook: empty contours": (UnreadableError, "no contours", remove("SCD01_contours/*")),
    "sunnybrook: no epicardium": (PhaseError, "ED is drawn in 0", remove("SCD01_contours/*ocontour*")),
    "sunnybrook: an image missing": (PhaseError, "different numbers", remove("SCD01/7.dcm")),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive_is_refused_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    kind, spoil = name.split(":")[0], HOSTILE[name]
    source = MAKE[kind](tmp_path / "in")
    spoil[2](source)
    with pytest.raises(spoil[0]) as caught:
        bring_in(kind, source, tmp_path / "out")
    assert type(caught.value) is spoil[0] and spoil[1] in caught.value.what
    assert caught.value.where and caught.value.mend
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_folder_that_is_not_there_or_empty_is_refused(kind: str, tmp_path: Path) -> None:
    for source in (tmp_path / "gone", tmp_path):
        with pytest.raises(DataError):
            bring_in(kind, source, tmp_path / "new" / "out")


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    source = MAKE["mnms"](tmp_path / "in")
    text("info.csv", "A,1,0,2", "A,1,0,9")(source)
    change("B1C2D3/B1C2D3_sa.nii.gz", lambda v: np.full_like(v, 7))(source)
    with pytest.raises(DataError, match="faults") as caught:
        bring_in("mnms", source, tmp_path / "out")
    assert "frame 9 of 3" in caught.value.what and "constant" in caught.value.what


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        bring_in("mnms", MAKE["mnms"](tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_another_sites_import_and_a_file_are_not_overwritten(tmp_path: Path) -> None:
    import_site(importer_of("mnms"), MAKE["mnms"](tmp_path / "in"), "first", tmp_path / "out")
    with pytest.raises(ConfigError, match="the import of site 'first', this is 'second'"):
        import_site(importer_of("mnms"), tmp_path / "in", "second", tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="it is a file"):
        import_site(importer_of("mnms"), tmp_path / "in", "first", tmp_path / "file")


def test_key_and_map_do_not_go_into_the_copy(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="key and map would lie in the copy"):
        import_site(importer_of("mnms"), MAKE["mnms"](tmp_path / "in"), "first", out, out / "private")
    assert not out.exists()


def test_a_folder_without_an_import_is_not_described(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"no cases\.csv"):
        describe(tmp_path)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    source = MAKE["mnms"](tmp_path / "in")
    bring_in("mnms", source, tmp_path / "out")
    (tmp_path / "out-private" / KEY_FILE).chmod(0o644)
    with pytest.raises(KeyFileError, match="others"):
        bring_in("mnms", source, tmp_path / "out")


@pytest.mark.parametrize("line", ["labels", "path", "phase"])
def test_a_case_table_that_was_tampered_with_is_refused(line: str, tmp_path: Path) -> None:
    bring_in("nifti", MAKE["nifti"](tmp_path / "in"), tmp_path / "out")
    path = tmp_path / "out" / "cases.csv"
    tampered = {
        "labels": ("RV MYO LV", "RV AORTA"),
        "path": ("ED_mask", "../../x"),
        "phase": (",ES,", ",ED,"),
    }
    path.write_text(path.read_text().replace(*tampered[line], 1))
    with pytest.raises(DataError):
        read_imported(tmp_path / "out")


@needs_real
@pytest.mark.parametrize(
    ("kind", "patients", "ml"),
    [("mnms", 2, ["101", "57", "96"]), ("sunnybrook", 1, ["—", "113", "196"]), ("dicom", 1, ["—", "—", "—"])],
)
def test_real_archives_are_read_as_they_are(kind: str, patients: int, ml: list[str], tmp_path: Path) -> None:
    done = bring_in(kind, REAL / kind, tmp_path / "out")
    assert done.patients == patients
    rows = [line for line in describe(tmp_path / "out").splitlines() if "| ED |" in line]
    assert any([cell.strip().removesuffix(" ml") for cell in row.split("|")[8:11]] == ml for row in rows)


@needs_real
def test_acdc_is_read_as_the_table_of_the_docs_says(tmp_path: Path) -> None:
    assert bring_in("acdc", REAL / "acdc", tmp_path / "out").patients == 50
    cells = [line.split(" | ") for line in describe(tmp_path / "out").splitlines()[2:]]
    for phase, expected in (("ED", [156.5, 129.5, 149.5]), ("ES", [68, 151.5, 64])):
        ml = np.array([[int(part.split()[0]) for part in row[7:10]] for row in cells if row[2] == phase])
        assert np.median(ml, axis=0).tolist() == expected
    slices = {int(row[4].split(" × ")[2]) for row in cells}
    assert (min(slices), max(slices)) == (6, 17) and {row[6] for row in cells} == {"0°"}


def test_an_image_that_is_none_of_a_masks_shape_is_named_by_its_patient(tmp_path: Path) -> None:
    source = MAKE["nifti"](tmp_path / "in")
    save(source / ED, np.zeros((*SHAPE[:2], 4), np.int16))
    with pytest.raises(GeometryError) as caught:
        bring_in("nifti", source, tmp_path / "out")
    assert "heart1" in caught.value.where
