"""The report of a tiny study, from cells to files; and the record of openings."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pandas as pd
import pytest
from study_files import CULPRIT, SITES, study_root, study_settings, study_source

from model.errors import ConfigError
from tasks.settings import Params
from tasks.study.cell import Cell
from tasks.study.methods import METHODS
from tasks.study.publish import attackers_of, publish, study_roles
from tasks.study.run import run_cell
from tasks.study.scenarios import SCENARIOS
from tasks.study.test_set import RECORD, SALT, mean_of_defined, open_test, record_opening
from tasks.study_report.roles import Roles

PLAN = (
    "study.methods=[zero-shot,fedavg,average,rated]",
    "study.defences=[rated,plain]",
    "study.scenarios=[]",
    "study.rating=[rated]",
    "study.rater_scenarios=[liar]",
    "study.rivals=[median,krum]",
    "study.rival_scenarios=[]",
    "study.choices=[average,int8-64k,fedavg,fedavg-lr-4e-3]",
    "study.seeds=[1-1]",
    "study.scenario_seeds=[1-1]",
    "study.choice_seeds=[1-1]",
)
DONE = [("zero-shot", "clean"), ("average", "clean"), ("rated", "liar"), ("int8-64k", "clean")]
"""fedavg and the clean federation of rated are not run yet."""


def plan(source: Path, *overrides: str) -> Params:
    return study_settings(f"study.source={source}", *PLAN, *overrides)


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_source(tmp_path_factory)


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, source: Path) -> Path:
    """A study of four finished cells, made once."""
    template = tmp_path_factory.getbasetemp() / "published-study"
    if not template.exists():
        new = study_root(tmp_path_factory, tmp_path / "new")
        for method, scenario in DONE:
            run_cell(new, source, Cell(method, scenario, 1, 1), plan(source))
        new.rename(template)
    return Path(shutil.copytree(template, tmp_path / "study"))


def entries(root: Path) -> list[dict[str, dict[str, str]]]:
    found: list[dict[str, dict[str, str]]] = json.loads((root / RECORD).read_text())
    return found


def test_an_unfinished_study_is_published_as_far_as_it_is(root: Path, source: Path, tmp_path: Path) -> None:
    said = publish(root, plan(source), tmp_path / "out")
    assert said.startswith("3 of 5 cells; ")
    page = (tmp_path / "out" / "README.md").read_text()
    assert "**Provisional: 2 cells of the study missing (see the end).**" in page
    assert "| zero-shot |" in page
    assert "| liar | rated |" in page
    cells = pd.read_csv(tmp_path / "out" / "cells.csv").set_index(["method", "scenario"])
    assert cells.loc[("zero-shot", "clean"), "upload_bytes"] == 0
    assert cells["weights_min"].notna().tolist() == [False, True, False]
    choices = pd.read_csv(tmp_path / "out" / "choices.csv").set_index("method")
    assert choices.index.tolist() == ["average", "int8-64k"]
    assert choices.loc["int8-64k", "paired_seeds"] == 1


def test_the_base_alone_is_published(root: Path, source: Path, tmp_path: Path) -> None:
    for folder in (root / "cells").iterdir():
        if not folder.name.startswith("zero-shot"):
            shutil.rmtree(folder)
    assert publish(root, plan(source), tmp_path / "out").startswith("1 of 5 cells")
    assert not (tmp_path / "out" / "choices.csv").exists()


def test_without_a_finished_cell_there_is_nothing_to_publish(
    root: Path, source: Path, tmp_path: Path
) -> None:
    shutil.rmtree(root / "cells")
    with pytest.raises(ConfigError, match="none of the study's 5 cells is finished") as caught:
        publish(root, plan(source), tmp_path / "out")
    assert caught.value.where and caught.value.mend
    assert not (tmp_path / "out").exists()


def test_a_second_report_opens_nothing_and_no_report_opens_the_test_for_choices(
    root: Path, source: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        publish(root, plan(source), tmp_path / name)
    (entry,) = entries(root)
    assert sorted(entry["cells"]) == ["average-clean-1-1", "rated-liar-1-1", "zero-shot-clean-1-1"]
    assert not list((root / "cells" / "int8-64k-clean-1-1").glob("test*"))
    assert (tmp_path / "a" / "README.md").read_bytes() == (tmp_path / "b" / "README.md").read_bytes()


def test_a_new_cell_and_a_changed_adaptation_of_one_that_adapts_are_openings_of_their_own(
    root: Path, source: Path
) -> None:
    old, new = Cell("zero-shot", "clean", 1, 1), Cell("average", "clean", 1, 1)
    steps = [([old], ()), ([old, new], ()), ([old, new], ()), ([old, new], ("adapt.epochs=2",))]
    for cells, overrides in steps:
        for cell in cells:
            open_test(root, source, cell, plan(source, *overrides))
        record_opening(root, cells)
    assert [sorted(entry["cells"]) for entry in entries(root)] == [
        [old.name],
        [new.name],
        [new.name],
    ]


def test_cells_that_were_not_evaluated_are_not_recorded(root: Path) -> None:
    record_opening(root, [Cell("zero-shot", "clean", 1, 1), Cell("krum", "clean", 1, 1)])
    assert not (root / RECORD).exists()


def test_openings_of_an_interrupted_report_are_recorded(
    root: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(root: Path, source: Path, cell: Cell, params: Params) -> Path:
        if cell.method == "average":
            raise KeyboardInterrupt
        return open_test(root, source, cell, params)

    monkeypatch.setattr("tasks.study.publish.open_test", failing)
    with pytest.raises(KeyboardInterrupt):
        publish(root, plan(source), tmp_path / "out")
    assert [list(entry["cells"]) for entry in entries(root)] == [["zero-shot-clean-1-1"]]


def test_keys_pair_patients_within_a_study_and_not_across_studies(
    root: Path, source: Path, tmp_path: Path
) -> None:
    def keys(study: Path, *cells: Cell) -> list[list[str]]:
        tables = [pd.read_csv(open_test(study, source, cell, plan(source)), dtype=str) for cell in cells]
        return [sorted(set(table["patient_key"])) for table in tables]

    other = Path(shutil.copytree(root, tmp_path / "other"))
    base, average = Cell("zero-shot", "clean", 1, 1), Cell("average", "clean", 1, 1)
    (here, there), (elsewhere,) = keys(root, base, average), keys(other, base)
    assert here == there
    assert len(here) == len(SITES)
    assert not set(here) & set(elsewhere)
    assert stat.S_IMODE((root / SALT).stat().st_mode) == 0o600


def test_a_new_salt_gives_all_patients_new_keys(root: Path, source: Path) -> None:
    cell = Cell("zero-shot", "clean", 1, 1)
    before = pd.read_csv(open_test(root, source, cell, plan(source)), dtype=str)["patient_key"].tolist()
    (root / SALT).unlink()
    after = pd.read_csv(open_test(root, source, cell, plan(source)), dtype=str)["patient_key"].tolist()
    assert not set(before) & set(after)


def test_a_patients_mean_is_over_the_defined_structures() -> None:
    assert mean_of_defined([0.6, float("nan"), 0.8]) == pytest.approx(0.7)
    assert pd.isna(mean_of_defined([float("nan")] * 3))


def test_another_split_has_another_attacker() -> None:
    rounds = pd.DataFrame({"site": SITES})
    found = [attackers_of(Cell("rated", "sign-flip", split, 1), rounds) for split in range(len(SITES))]
    assert found == [{site} for site in SITES]


def test_the_report_compares_a_scenario_with_the_one_beside_it_if_the_sites_are_the_same() -> None:
    roles = study_roles(plan(Path("nowhere")))
    assert roles.beside["stealthy-poison"] == "scanner-shift"
    assert set(SCENARIOS) - set(roles.beside) == {"clean", "imbalanced", "mixed-clinic", "scanner-shift"}
    assert {twin for name, twin in roles.beside.items() if name != "stealthy-poison"} == {"clean"}


def test_every_culprit_of_a_scenario_is_an_attacker_or_a_faulty_rater_in_the_claims() -> None:
    roles = study_roles(plan(Path("nowhere")))
    assert roles.rater_faults == ("liar", "biased-rater", "tiny-rater")
    assert set(roles.attacks) == set(SCENARIOS) - set(HONEST)
    assert roles.rivals == ("median", "krum")


def test_the_methods_that_the_report_shows_by_name_exist() -> None:
    roles = Roles()
    assert {roles.ours, roles.plain, roles.reference, *roles.local, *roles.by_seed} <= set(METHODS)


HONEST = ("clean", "imbalanced", "mixed-clinic", "scanner-shift", "liar", "biased-rater", "tiny-rater")
HONEST += ("absent-half", "late")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_bad_raters_are_honest_unless_they_attack_as_well(scenario: str) -> None:
    rounds = pd.DataFrame({"site": [*reversed(SITES), *SITES]})
    expected = {CULPRIT, "nor"} if scenario == "collusion" else set() if scenario in HONEST else {CULPRIT}
    assert attackers_of(Cell("rated", scenario, 1, 1), rounds) == expected
