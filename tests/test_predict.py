"""A new patient segmented: the mask lies on the input's voxels, numbers and doubts are true, faults are refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import voxel_sizes
from predict_files import AFFINE, SITE, SPACING_MM, greys_of, reader, true_masks, write_cine, write_run
from typer.testing import CliRunner

from flows.cli import app
from model.errors import (
    CardiofedError,
    ConfigError,
    DataError,
    GeometryError,
    IntegrityError,
    IntensityError,
    ObjectMissingError,
    PackageError,
    PassportError,
    PhaseError,
    RoundError,
    UnreadableError,
)
from model.labels import LV
from model.volumes import heart_function
from tasks.personal_passport import personal_file
from tasks.predict.choose import model_for, other_model
from tasks.predict.ready import ready_model
from tasks.predict.run import predict
from tasks.predict.shelf import Shelf

OBLIQUE = np.array([[-1.1, 0.3, 4.0, 60], [0.4, -1.4, -3.0, 40], [1.0, 0.4, 6.5, -20], [0, 0, 0, 1.0]])


def oblique() -> np.ndarray:
    """Doubly oblique, the columns perpendicular."""
    q, _ = np.linalg.qr(OBLIQUE[:3, :3])
    affine = OBLIQUE.copy()
    affine[:3, :3] = q * np.array(SPACING_MM)
    return affine


@pytest.mark.parametrize("affine", [AFFINE, np.diag([1.6, 1.5, -8.0, 1.0]), oblique()])
def test_the_mask_lies_on_the_inputs_voxels(tmp_path: Path, affine: np.ndarray) -> None:
    source = write_cine(tmp_path / "cine.nii.gz", affine)
    result = predict(source, tmp_path / "out", reader(), "asked for", "none")
    mask, image = nib.load(tmp_path / "out" / "mask.nii.gz"), nib.load(source)
    assert mask.shape == image.shape and np.array_equal(mask.affine, image.affine)
    assert mask.get_data_dtype() == np.uint8 and mask.header.get_zooms() == image.header.get_zooms()
    found, truth = np.asarray(mask.dataobj), true_masks()
    assert (found != truth).mean() < 0.01
    assert (found[..., 4, :] == 0).all(), "the empty slice is the last one here too"
    assert (result.ed, result.es, result.phases_from) == (0, 2, "volume curve")
    assert result.lv.edv_ml == pytest.approx(
        round(int((found[..., 0] == LV).sum()) * 1.6 * 1.5 * 8 / 1000, 2)
    )


def test_numbers_stand_in_json_and_csv_and_follow_from_the_masks(tmp_path: Path) -> None:
    result = predict(write_cine(tmp_path / "c.nii"), tmp_path / "out", reader(), "asked for", reader())
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    (line,) = csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines())
    assert written == result.model_dump(mode="json")
    assert written["input"]["spacing_mm"] == [1.6, 1.5, 8.0], "x, y, z, as the shape"
    masks = np.asarray(nib.load(tmp_path / "out" / "mask.nii.gz").dataobj)
    function = heart_function(masks[..., 0], masks[..., 2], SPACING_MM)
    assert (
        float(line["lv_ef_percent"])
        == result.lv.ef_percent
        == pytest.approx(function.lv.ef_percent, abs=0.01)
    )
    assert float(line["rv_esv_ml"]) == pytest.approx(function.rv.esv_ml, abs=0.01)
    assert result.lv_mass_g == pytest.approx(function.mass_g, abs=0.01)
    assert len(result.volumes_ml["RV"]) == 5 and line["model_model_sha256"] == "a" * 64
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("mask.nii.gz", "overlay-ed.png", "overlay-es.png", "results.csv", "results.json")
    }


def test_phases_that_are_given_are_used(tmp_path: Path) -> None:
    source = write_cine(tmp_path / "c.nii")
    result = predict(source, tmp_path / "a", reader(), "", "none", ed=1, es=3)
    assert (result.ed, result.es, result.phases_from) == (1, 3, "given")
    assert predict(source, tmp_path / "b", reader(), "", "none", ed=4).es == 2
    for ed, es in ((5, 1), (-1, 1), (2, 2), (2, None)):
        with pytest.raises(PhaseError):
            predict(source, tmp_path / "c", reader(), "", "none", ed=ed, es=es)
    assert not (tmp_path / "c").exists()


def test_a_still_stack_is_found_by_its_mask_and_says_what_it_lacks(tmp_path: Path) -> None:
    labels = np.roll(true_masks()[..., 0], 6, axis=0)  # off the image's centre
    nib.save(nib.Nifti1Image(greys_of(labels), AFFINE), tmp_path / "s.nii")
    result = predict(tmp_path / "s.nii", tmp_path / "out", reader(64), "", "none")
    mask = nib.load(tmp_path / "out" / "mask.nii.gz")
    assert mask.shape == labels.shape and (np.asarray(mask.dataobj) != labels).mean() < 0.02
    assert result.lv.ef_percent is None and result.ed is None and result.heart_found_by == "mask"
    assert {"one_phase", "heart_not_located"} <= {flag.name for flag in result.flags}
    assert result.volumes_ml["LV"][0] > 0


def test_models_that_disagree_are_said_not_hidden(tmp_path: Path) -> None:
    class Blind(type(reader())):  # type: ignore[misc]
        @property
        def predict(self):  # type: ignore[no-untyped-def]
            return lambda images: reader().predict(images)[:, [1, 0, 2, 3]]

    other = Blind(**vars(replace(reader(), name="personal")))
    result = predict(write_cine(tmp_path / "c.nii"), tmp_path / "out", reader(), "", other)
    assert ("models_disagree", "RV") in {(flag.name, flag.structure) for flag in result.flags}
    (line,) = csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines())
    assert "models_disagree RV ED" in line["flags"]


def write(path: Path, values: np.ndarray, affine: np.ndarray | None = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def no_spacing(path: Path) -> Path:
    image = nib.Nifti1Image(greys_of(true_masks()), None)
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda p: write(p, np.zeros((20, 20), np.int16)), GeometryError, "2 axes"),
        (lambda p: write(p, np.zeros((4, 4, 4, 2, 2), np.int16)), GeometryError, "5 axes"),
        (lambda p: write(p, greys_of(true_masks())[:, :, :2]), GeometryError, "2 slices"),
        (lambda p: write(p, true_masks()), IntensityError, "a mask, not an image"),
        (lambda p: write(p, np.full((20, 20, 5), 7, np.int16)), IntensityError, "constant"),
        (lambda p: write(p, np.full((20, 20, 5), np.nan, np.float32)), IntensityError, "NaN"),
        (no_spacing, GeometryError, "no spacing"),
        (lambda p: p, UnreadableError, "no such file"),
        (lambda p: p.write_bytes(b"nothing") and p, UnreadableError, "cannot be read"),
        (lambda p: p.mkdir() or p, UnreadableError, "no DICOM"),
    ],
)
def test_what_cannot_be_segmented_is_refused_by_name(
    tmp_path: Path, make, error: type[DataError], said: str
) -> None:
    source = make(tmp_path / "study.nii")
    with pytest.raises(error, match=said) as refused:
        predict(source, tmp_path / "out", reader(), "", "none")
    assert refused.value.mend and str(source) in refused.value.where
    assert not (tmp_path / "out").exists()


def test_results_are_never_overwritten(tmp_path: Path) -> None:
    source = write_cine(tmp_path / "c.nii")
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        predict(source, tmp_path / "out", reader(), "", "none")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(write_run(tmp_path / "run"), SITE, live=False)


def test_base_global_and_personal_are_three_models(shelf: Shelf) -> None:
    models = [ready_model(shelf, name) for name in ("base", "global", "personal")]
    first = [next(iter(model.weights.values())) for model in models]
    assert not first[0].equal(first[1]) and not first[1].equal(first[2])
    assert models[0].model_sha256 != models[1].model_sha256 == models[2].model_sha256
    assert models[2].personal_sha256 and models[2].site == SITE and models[1].site == ""
    assert other_model(shelf, models[1]).name == "personal"  # type: ignore[union-attr]
    assert "no hospital is named" in str(other_model(replace(shelf, site=""), models[1]))
    personal_file(shelf.home, 1).unlink()
    assert other_model(shelf, models[1]) == f"{SITE} has no personal adapter of round 1 here"


def flip(path: Path, at: int = -3) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def of_base(ws) -> Path:
    return next(ws.base_home.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("name", "harm", "error"),
    [
        ("base", lambda ws: flip(of_base(ws)), IntegrityError),
        ("base", lambda ws: of_base(ws).unlink(), ConfigError),
        ("global", lambda ws: flip(ws.rounds / "0001" / "merged.safetensors"), IntegrityError),
        ("global", lambda ws: (ws.rounds / "0001" / "merged.safetensors").unlink(), IntegrityError),
        ("global", lambda ws: flip(ws.rounds / "0001" / "plan.json", 30), PassportError),
        ("global", lambda ws: (ws.rounds / "0001" / "close.json").write_text("{}"), PassportError),
        ("global", lambda ws: (ws.rounds / "0001" / "plan.json").unlink(), PassportError),
        ("personal", lambda ws: flip(personal_file(ws.site_home(SITE), 1)), IntegrityError),
        ("personal", lambda ws: personal_file(ws.site_home(SITE), 1).unlink(), ObjectMissingError),
        (
            "personal",
            lambda ws: personal_file(ws.site_home(SITE), 1).with_suffix(".json").unlink(),
            PassportError,
        ),
    ],
)
def test_a_model_that_is_not_what_its_passport_says_is_refused(shelf: Shelf, name, harm, error) -> None:
    harm(shelf.ws)
    with pytest.raises(error) as refused:
        ready_model(shelf, name)
    assert isinstance(refused.value, CardiofedError) and refused.value.mend


def test_a_personal_adapter_of_another_site_is_refused(shelf: Shelf) -> None:
    ours = personal_file(shelf.ws.site_home(SITE), 1)
    theirs = personal_file(shelf.ws.site_home("lakeside"), 1)
    theirs.parent.mkdir(parents=True)
    for kind in (".safetensors", ".json"):
        ours.with_suffix(kind).rename(theirs.with_suffix(kind))
    with pytest.raises(PassportError, match="belongs to round 1 of st-anna"):
        ready_model(replace(shelf, site="lakeside"), "personal")


def test_a_base_of_other_labels_is_refused(shelf: Shelf) -> None:
    plan = shelf.ws.rounds / "0001" / "plan.json"
    swapped = plan.read_text().replace('"RV":1', '"RV":3').replace('"LV":3', '"LV":1')
    plan.write_text(swapped)
    with pytest.raises(PackageError):
        ready_model(shelf, "global")


def test_without_a_closed_round_only_the_base_is_there(shelf: Shelf) -> None:
    (shelf.ws.rounds / "0001" / "close.json").unlink()
    assert ready_model(shelf, "base").round is None
    with pytest.raises(RoundError, match="no round has closed"):
        ready_model(shelf, "global")


def test_the_command_says_its_numbers_and_its_doubts(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "demo")
    source = write_cine(tmp_path / "c.nii.gz")
    common = [
        "predict",
        str(source),
        "--runs",
        str(tmp_path / "runs"),
        "--site",
        SITE,
        "--ed",
        "0",
        "--es",
        "2",
    ]
    said = CliRunner().invoke(app, [*common, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert said.exit_code == 0 and "global, round 1 (not released); the default; " in said.output
    assert "doubt: " in said.output, "an untrained model is doubtful"
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["flags"] and written["model"]["round"] == 1 and written["model"]["channel"] == ""
    assert voxel_sizes(nib.load(tmp_path / "out" / "mask.nii.gz").affine).tolist() == pytest.approx(
        SPACING_MM
    )


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--run", "none"], ConfigError),
        (["--site", "nowhere"], ConfigError),
        (["--round", "7"], RoundError),
        (["--model", "best"], ConfigError),
        (["--model", "personal"], ConfigError),
    ],
)
def test_a_model_that_is_not_there_is_said(
    tmp_path: Path, options: list[str], error: type[CardiofedError]
) -> None:
    write_run(tmp_path / "runs" / "demo")
    source = write_cine(tmp_path / "c.nii.gz")
    common = ["predict", str(source), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert isinstance(CliRunner().invoke(app, [*common, *options]).exception, error)


def test_the_default_is_the_global_model(shelf: Shelf) -> None:
    model, why = model_for(shelf, None, None)
    assert (model.name, model.round, why) == ("global", 1, "the default")
