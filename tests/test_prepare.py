"""From files to cached slices and back: nothing lost, nothing leaked, the same bytes every time."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from phantom_files import heart_mask, write_group, write_patient
from torch import Tensor
from torch.nn.functional import one_hot

from model.errors import CohortError, ConfigError, DataError, DiskError, UnreadableError
from model.labels import STRUCTURES
from model.split import SPLITS
from tasks import dataset_md5 as dataset_md5_module
from tasks import prepare as prepare_module
from tasks.cases import read_cases
from tasks.dataset_md5 import dataset_md5
from tasks.evaluate import (
    Case,
    clinical_table,
    evaluate_cases,
    evaluate_site,
    load_cases,
    segment_case,
    summarise,
)
from tasks.prepare import prepare
from tasks.settings import Params, load_params
from tasks.slices import load_slices

ROOT = Path(__file__).parent.parent
PARAMS = load_params(ROOT / "params.yaml", ("data.crop=48", "seed=5"))
TILTED = np.array([[0.2, 1.4, 0.6, -30], [-1.6, 0.1, -0.5, 40], [0.1, 0.3, -7.9, 12], [0, 0, 0, 1.0]])


def _source(root: Path) -> Path:
    write_group(root / "riverside", "NOR", 3, first=1)
    write_group(root / "st-anna", "DCM", 2, first=11)
    write_patient(root / "st-anna" / "patient013", seed=13, group="NOR", affine=TILTED, shape_xyz=(40, 45, 5))
    return root


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def home(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    prepare(source, "acdc", "folder", home, PARAMS)
    return home


def _tree(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()
    }


def _all_cases(site_home: Path) -> list[Case]:
    return [case for split in SPLITS for case in load_cases(site_home, split)]


def _oracle(case: Case) -> Tensor:
    """The true mask as the network would say it, one-hot on its grid."""
    mask = case.crop.to_network(case.orientation.to_native(case.truth), nearest=True)
    return one_hot(mask[:, 0].long(), 4).permute(0, 3, 1, 2).float()


def _nothing(slices: Tensor) -> Tensor:
    background = torch.zeros(slices.shape[0], 4, *slices.shape[2:])
    background[:, 0] = 1
    return background


def test_every_site_gets_table_slices_and_card(home: Path) -> None:
    files = ["card.json", "cases.csv", "test.npz", "train.npz", "validation.npz"]
    assert list(_tree(home)) == [f"{site}/{file}" for site in ("riverside", "st-anna") for file in files]


def test_same_input_gives_same_bytes(source: Path, home: Path, tmp_path: Path) -> None:
    prepare(source, "acdc", "folder", tmp_path, PARAMS)
    prepare(source, "acdc", "folder", tmp_path, PARAMS)
    assert _tree(tmp_path) == _tree(home)


def test_no_patient_stands_on_two_sides(home: Path) -> None:
    for site_home in home.iterdir():
        sides: dict[str, set[str]] = {}
        for row in read_cases(site_home):
            sides.setdefault(row.patient, set()).add(row.split)
        assert sorted(map(len, sides.values())) == [1, 1, 1]
        numbers = [set(load_slices(site_home, split).patient.tolist()) for split in SPLITS]
        assert sum(map(len, numbers)) == len(set.union(*numbers)) == 3


def test_pseudonyms_do_not_follow_folder_names(tmp_path: Path) -> None:
    write_group(tmp_path / "source", "NOR", 9, first=1)
    prepare(tmp_path / "source", "acdc", "group", tmp_path / "home", PARAMS)
    folders = [
        Path(row.image).parent.name for row in read_cases(tmp_path / "home" / "nor") if row.phase == "ED"
    ]
    assert len(folders) == 9
    assert folders != sorted(folders)


def test_the_card_names_no_file_and_no_patient(home: Path) -> None:
    text = (home / "st-anna" / "card.json").read_text()
    card = json.loads(text)
    assert "patient0" not in text
    assert "nii" not in text
    assert card["patients"] == {"train": 1, "validation": 1, "test": 1}
    assert card["slices"] == {"train": 10, "validation": 10, "test": 10}
    assert card["groups"] == {"DCM": 2, "NOR": 1}
    assert card["spacing_min_mm"] < card["spacing_max_mm"]


def test_slices_show_the_heart_in_the_square(home: Path) -> None:
    for site_home in home.iterdir():
        slices = load_slices(site_home, "train")
        assert slices.images.shape == (10, 1, 48, 48)
        assert slices.images.dtype == torch.float32
        assert slices.masks.dtype == torch.int64
        assert set(slices.masks.unique().tolist()) == {0, 1, 2, 3}
        assert (
            slices.images[:, 0][slices.masks == 3].mean() > slices.images[:, 0][slices.masks == 2].mean() + 1
        )
        assert slices.phase.tolist() == [0] * 5 + [1] * 5
        assert slices.z.tolist() == [*range(5), *range(5)]


def test_every_file_orientation_gives_the_same_picture(tmp_path: Path) -> None:
    for number, signs in enumerate([(1, 1), (-1, 1), (1, -1), (-1, -1)], start=1):
        affine = np.diag([signs[0] * 1.6, signs[1] * 1.5, 8.0, 1.0])
        folder = write_patient(tmp_path / "source" / f"patient{number:03d}", seed=number, affine=affine)
        for path in folder.glob("*.nii.gz"):
            image = nib.load(path)
            flipped = np.asarray(image.dataobj)[:: signs[0], :: signs[1]]
            nib.save(nib.Nifti1Image(flipped, affine), path)
    prepare(tmp_path / "source", "acdc", "site:a", tmp_path / "home", PARAMS)
    first, *others = [
        case.orientation.to_native(case.truth) for case in _all_cases(tmp_path / "home" / "a")[::2]
    ]
    assert all(np.array_equal(first, other) for other in others)


def test_a_perfect_network_scores_high_in_the_original_space(home: Path) -> None:
    for case in _all_cases(home / "st-anna") + _all_cases(home / "riverside"):
        frame = evaluate_cases(lambda _, case=case: _oracle(case), [case])
        assert frame.dice.min() > 0.9
        assert frame.hd95_mm.max() < 3


def test_truth_is_the_mask_file_in_its_own_axes(home: Path) -> None:
    for case in _all_cases(home / "st-anna"):
        assert np.array_equal(case.truth, np.asarray(nib.load(case.row.mask).dataobj))
        assert case.spacing_mm == pytest.approx(nib.load(case.row.mask).header.get_zooms(), rel=1e-5)


def test_volumes_are_voxels_times_spacing(home: Path) -> None:
    frame = evaluate_site(_nothing, home / "riverside", "test", surfaces=False)
    row = frame.query("structure == 'LV' and phase == 'ED'").iloc[0]
    voxels = int((heart_mask((44, 40, 5), (1.6, 1.5, 8.0), 12.0) == STRUCTURES["LV"]).sum())
    assert row.true_ml == pytest.approx(voxels * 1.6 * 1.5 * 8.0 / 1000, rel=1e-5)
    assert (row.pred_ml, row.dice, row.voe, row.n_slices) == (0, 0, 1, 5)


def test_one_row_per_patient_phase_and_structure(home: Path) -> None:
    frame = evaluate_site(_nothing, home / "riverside", "test")
    columns = (
        "patient group vendor centre phase structure dice voe hd_mm hd95_mm assd_mm pred_ml true_ml n_slices"
    )
    of_levels = "dice voe hd_mm hd95_mm assd_mm slices measured"
    levels = [f"{name}_{level}" for level in ("base", "mid", "apex") for name in of_levels.split()]
    assert list(frame.columns) == [*columns.split(), *levels]
    assert len(frame) == len(frame.drop_duplicates(["patient", "phase", "structure"])) == 6


def test_the_summary_counts_what_is_undefined(home: Path) -> None:
    summary = summarise(evaluate_site(_nothing, home / "riverside", "test"))
    assert summary["LV"]["ED"]["dice"] == {"mean": 0.0, "sd": None, "defined": 1, "undefined": 0}
    assert summary["LV"]["ED"]["hd95_mm"] == {"mean": None, "sd": None, "defined": 0, "undefined": 1}
    json.dumps(summary, allow_nan=False)


def test_the_summary_is_mean_and_sample_deviation() -> None:
    metrics = {"voe": 0.1, "hd_mm": 1.0, "hd95_mm": 1.0, "assd_mm": np.nan}
    frame = pd.DataFrame(
        [{"structure": "RV", "phase": "ES", "dice": dice, **metrics} for dice in (0.8, 0.9, np.nan)]
    )
    dice = summarise(frame)["RV"]["ES"]["dice"]
    assert dice == {
        "mean": pytest.approx(0.85),
        "sd": pytest.approx(0.05 * 2**0.5),
        "defined": 2,
        "undefined": 1,
    }


def test_clinical_table_by_hand() -> None:
    ml = {
        ("LV", "ED"): 100,
        ("LV", "ES"): 40,
        ("RV", "ED"): 120,
        ("RV", "ES"): 60,
        ("MYO", "ED"): 80,
        ("MYO", "ES"): 90,
    }
    rows = [
        {"patient": "p001", "group": "NOR", "structure": s, "phase": p, "true_ml": v, "pred_ml": v / 2}
        for (s, p), v in ml.items()
    ]
    (line,) = clinical_table(pd.DataFrame(rows)).to_dict("records")
    assert (line["lv_edv_true_ml"], line["lv_edv_pred_ml"], line["lv_sv_true_ml"]) == (100, 50, 60)
    assert (line["lv_ef_true_percent"], line["lv_ef_pred_percent"], line["rv_ef_true_percent"]) == (
        60,
        60,
        50,
    )
    assert (line["mass_true_g"], line["mass_pred_g"]) == (84, 42)


def test_a_segmentation_lies_on_its_image(home: Path) -> None:
    (case,) = (
        case for case in _all_cases(home / "st-anna") if case.row.group == "NOR" and case.row.phase == "ED"
    )
    found = segment_case(lambda _: _oracle(case), case.row)
    assert found.image.shape == found.truth.shape == found.prediction.shape == (5, 40, 45)
    assert found.image[found.truth == 3].min() > found.image[found.truth == 2].max()
    assert (found.truth == found.prediction).mean() > 0.95


def test_a_patient_left_at_another_site_of_home_is_refused(source: Path, tmp_path: Path) -> None:
    prepare(source, "acdc", "folder", tmp_path, PARAMS)
    with pytest.raises(CohortError, match="prepared earlier"):
        prepare(source, "acdc", "site:all", tmp_path, PARAMS)


def test_a_full_disk_leaves_the_former_site_whole(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(source, "acdc", "folder", tmp_path, PARAMS)
    before = _tree(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prepare_module, "save_slices", full)
    with pytest.raises(DiskError, match="No space left"):
        prepare(source, "acdc", "folder", tmp_path, PARAMS)
    assert _tree(tmp_path) == before


def test_a_failure_leaves_no_folder_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dark(*_: object) -> None:
        raise DataError("no heart found")

    monkeypatch.setattr(prepare_module, "heart_centre", dark)
    with pytest.raises(DataError, match="no heart"):
        prepare(source, "acdc", "folder", tmp_path / "new", PARAMS)
    assert not (tmp_path / "new").exists()


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.pdf").write_bytes(b"")

    def shut(path: str) -> str:  # the superuser may read every file
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(dataset_md5_module, "file_md5", shut)
    with pytest.raises(UnreadableError, match="Permission denied") as caught:
        dataset_md5([tmp_path / "report.pdf"], tmp_path)
    assert caught.value.where == str(tmp_path / "report.pdf")
    assert caught.value.mend


def test_what_a_killed_run_left_is_removed(source: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / ".preparing-x" / "st-anna").mkdir(parents=True)
    (tmp_path / ".preparing-x" / "st-anna" / "train.npz").write_bytes(b"half")
    prepare(source, "acdc", "folder", tmp_path, PARAMS)
    assert _tree(tmp_path) == _tree(home)


def test_unknown_layout_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bids"):
        prepare(source, "bids", "folder", tmp_path, PARAMS)


def test_a_site_that_was_not_prepared_is_named(tmp_path: Path) -> None:
    for read in (read_cases, lambda path: load_slices(path, "train")):
        with pytest.raises(UnreadableError) as caught:
            read(tmp_path)
        assert str(tmp_path) in caught.value.where


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of DVC's own dependencies
def test_dataset_md5_is_what_dvc_add_writes(
    source: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE"):
        monkeypatch.setenv(f"DVC_{name}_DIR", str(tmp_path / name))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    from dvc.repo import Repo

    folder = tmp_path / "repo" / "st-anna"
    for path in (source / "st-anna").rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(source / "st-anna")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    with Repo.init(str(tmp_path / "repo"), no_scm=True) as repo:
        (stage,) = repo.add(str(folder))
        written = str(stage.outs[0].hash_info.value)
    assert dataset_md5((path for path in folder.rglob("*") if path.is_file()), folder) == written
    assert json.loads((home / "st-anna" / "card.json").read_text())["dataset_md5"] == written


def test_settings_change_the_grid(source: Path, tmp_path: Path) -> None:
    params = Params.model_validate(PARAMS.model_dump() | {"data": PARAMS.data.model_dump() | {"crop": 32}})
    prepare(source, "acdc", "folder", tmp_path, params)
    assert load_slices(tmp_path / "riverside", "test").images.shape[-2:] == (32, 32)
