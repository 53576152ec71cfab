"""The data card and its drift: what a site tells, what it keeps, and what it warns of before it trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from phantom_files import write_group

from tasks.cases import SiteCard
from tasks.data_card import federation_card
from tasks.drift import CARDS, WARNINGS, check_data, drifted, far_cases
from tasks.enrol import read_card
from tasks.prepare import prepare
from tasks.settings import load_params
from tasks.slices import load_slices, save_slices
from tasks.small_cells import shareable

PARAMS = load_params(Path(__file__).parent.parent / "params.yaml", ("data.crop=32",))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    write_group(root / "in", "NOR", 6, first=1)
    prepare(root / "in", "acdc", "site:a", root / "cohort", PARAMS)
    return root / "cohort" / "a"


def test_the_card_counts_phases_vendors_labels_and_measures_intensity(home: Path) -> None:
    card = read_card(home)
    assert card.phases == {"ED": 6, "ES": 6} and card.vendors == {"unknown": 6}
    assert card.labels == {f"{phase} {name}": 6 for phase in ("ED", "ES") for name in ("RV", "MYO", "LV")}
    assert card.spacing_median_mm == (8.0, 1.5, 1.6)
    assert card.intensity is not None and 0 < card.intensity < 1


def test_others_see_no_cell_of_a_few_patients(home: Path) -> None:
    counts = {"train": 21, "validation": 5, "test": 5}
    vendors, labels = {"GE": 9, "Philips": 2, "Siemens": 20}, {"ED LV": 31, "ED RV": 29, "ES RV": 3}
    card = read_card(home).model_copy(update={"patients": counts, "vendors": vendors, "labels": labels})
    seen = shareable(card, 5)
    assert seen.vendors == {"Siemens": 20}  # GE would give Philips away by the total
    assert seen.labels == {"ED LV": 31}  # nor may the two without an RV be counted
    assert {"vendors.GE", "vendors.Philips", "labels.ED RV", "labels.ES RV"} <= set(seen.suppressed)
    small = shareable(card.model_copy(update={"patients": {"train": 2, "validation": 1, "test": 1}}), 5)
    assert small.intensity is None and small.spacing_median_mm is None


def test_the_federations_card_is_the_sum_of_the_sites(home: Path) -> None:
    card = read_card(home)
    both = federation_card([card, card.model_copy(update={"groups": {"DCM": 6}})])
    assert both["groups"] == {"DCM": 6, "NOR": 6} and both["phases"] == {"ED": 12, "ES": 12}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spacing_median_mm": (10.0, 1.5, 1.6)}, ["spacing"]),
        ({"intensity": 0.9}, ["intensity"]),
        ({"vendors": {"unknown": 4, "GE": 2}}, ["vendor"]),
        ({"vendors": {"unknown": 5, "GE": 1}}, []),
        ({"labels": {"ED LV": 6}}, ["labels"]),
        ({}, []),
    ],
)
def test_what_changed_since_the_last_training_is_named(
    change: dict[str, object], said: list[str], home: Path
) -> None:
    before = read_card(home)
    after = before.model_copy(update={**change, "dataset_md5": "other.dir"})
    assert drifted(before, after) == said
    assert drifted(None, after) == []


def test_warnings_stay_at_the_site_and_the_passport_tells_kinds_alone(home: Path, tmp_path: Path) -> None:
    assert check_data(home, tmp_path, 1) == ()
    old = read_card(home).model_copy(update={"spacing_median_mm": (5.0, 1.5, 1.6), "dataset_md5": "old.dir"})
    (tmp_path / CARDS / "0001.json").write_text(old.model_dump_json())
    for _ in range(2):  # a round that was killed says it again
        assert check_data(home, tmp_path, 2) == ("spacing",)
    assert json.loads((tmp_path / WARNINGS).read_text()) == {"round": 2, "changed": ["spacing"], "cases": {}}
    assert '"warned"' in (tmp_path / "events.jsonl").read_text()
    assert check_data(home, tmp_path, 3) == ()  # what was trained on is the new normal
    assert SiteCard.model_validate_json((tmp_path / CARDS / "0003.json").read_text()) == read_card(home)


def test_a_case_unlike_the_others_is_named_by_its_pseudonym(home: Path, tmp_path: Path) -> None:
    assert far_cases(home) == {}
    for file in home.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    slices = load_slices(tmp_path, "train")
    odd = int(slices.patient[0])
    slices.images[(slices.patient == odd) & (slices.phase == 0)] += 5
    save_slices(slices, tmp_path, "train")
    assert far_cases(tmp_path) == {f"p{odd:03d} ED": ["intensity"]}
    assert check_data(tmp_path, tmp_path / "own", 1) == ("case",)
