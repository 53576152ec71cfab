"""What the study runs: seeds, names, which cells the test is opened for, and a mistyped command."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from federation_files import PARAMS_FILE
from hypothesis import given, settings
from hypothesis import strategies as st
from study_files import study_settings

from flows.cli import main
from model.errors import ConfigError
from tasks.settings import lay_over, load_params
from tasks.study.cell import Cell
from tasks.study.choices import ALL, CHOICES
from tasks.study.methods import METHODS
from tasks.study.plan import checked_cell, choice_cells, parse_seed, planned_cells, study_params
from tasks.study.scenarios import SCENARIOS

few = settings(deadline=None, max_examples=50)


@few
@given(split=st.integers(0, 10**9), train=st.integers(0, 10**9))
def test_a_pair_of_seeds_is_read_as_it_is_written(split: int, train: int) -> None:
    assert parse_seed(f"{split}-{train}") == (split, train)


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "1-2-3", "a-1", "1 - 1", "1.0-1", "--"])
def test_anything_else_is_no_pair_of_seeds(text: str) -> None:
    with pytest.raises(ConfigError, match="is no pair of seeds") as caught:
        parse_seed(text)
    assert "SPLIT-TRAINING" in caught.value.mend


NAMES = (
    "methods",
    "defences",
    "choices",
    "scenarios",
    "rating",
    "rater_scenarios",
    "rivals",
    "rival_scenarios",
)


@pytest.mark.parametrize("key", NAMES)
def test_an_unknown_name_in_the_settings_is_named(key: str) -> None:
    with pytest.raises(ConfigError, match="does not know fedmagic") as caught:
        study_settings(f"study.{key}=[fedmagic]")
    assert "fedavg" in caught.value.mend
    assert "liar" in caught.value.mend


@pytest.mark.parametrize(
    ("method", "scenario"), [("nosuch", "clean"), ("fedavg", "nosuch"), ("liar", "clean")]
)
def test_an_unknown_method_or_scenario_of_a_cell_is_named(method: str, scenario: str) -> None:
    unknown = method if method not in ALL else scenario
    with pytest.raises(ConfigError, match=f"does not know {unknown}"):
        checked_cell(Cell(method, scenario, 1, 1))


def test_a_known_cell_passes() -> None:
    cell = Cell("rated", "liar", 1, 2)
    assert checked_cell(cell) == cell
    assert cell.name == "rated-liar-1-2"


@pytest.mark.parametrize(
    ("method", "scenario"),
    [
        ("fedavg", "scaled-update"),
        ("fedit", "late"),
        ("pooled", "absent-half"),
        ("median", "liar"),
        ("plain", "tiny-rater"),
    ],
)
def test_a_scenario_that_means_nothing_to_a_method_is_refused(method: str, scenario: str) -> None:
    with pytest.raises(ConfigError, match=f"{scenario} changes nothing for {method}"):
        checked_cell(Cell(method, scenario, 1, 1))


@pytest.mark.parametrize(
    ("method", "scenario"), [("fedavg", "swapped-labels"), ("median", "collusion"), ("paper", "liar")]
)
def test_a_scenario_that_reaches_a_method_is_run(method: str, scenario: str) -> None:
    assert checked_cell(Cell(method, scenario, 1, 1))


def test_the_study_has_rounds_of_its_own() -> None:
    params = study_settings("federation.rounds=9", "study.rounds=4")
    assert params.federation.rounds == 4


NO_OTHERS = ("study.rater_scenarios=[]", "study.rival_scenarios=[]")


def test_every_method_runs_clean_and_in_its_scenarios() -> None:
    params = study_settings(
        "study.methods=[fedavg,rated]",
        "study.defences=[rated]",
        "study.scenarios=[late]",
        "study.rating=[rated]",
        "study.rater_scenarios=[liar]",
        "study.rivals=[krum]",
        "study.rival_scenarios=[sign-flip]",
        "study.seeds=[1-1,2-5]",
        "study.scenario_seeds=[2-5]",
    )
    names = [cell.name for cell in planned_cells(params)]
    clean = [f"{method}-clean-{seed}" for seed in ("1-1", "2-5") for method in ("fedavg", "rated")]
    assert names == [*clean, "rated-late-2-5", "rated-liar-2-5", "krum-sign-flip-2-5"]


def test_no_cell_is_planned_twice() -> None:
    params = study_settings(
        "study.scenarios=[clean,late]", "study.seeds=[1-1,1-1]", "study.scenario_seeds=[1-1]", *NO_OTHERS
    )
    planned = planned_cells(params)
    assert len(planned) == len(set(planned))


def test_choices_are_never_among_the_cells_that_the_test_is_opened_for() -> None:
    params = study_params(load_params(PARAMS_FILE))
    choices, planned = choice_cells(params), planned_cells(params)
    assert not {cell.method for cell in planned} & set(CHOICES)
    assert {cell.scenario for cell in choices} == {"clean"}
    assert not {cell.split_seed for cell in planned} & {cell.split_seed for cell in choices}


def test_every_choice_is_run_with_its_default() -> None:
    asked = load_params(PARAMS_FILE).study.choices
    assert {ALL[choice].default for choice in asked} - {""} <= set(asked)


def test_the_projects_own_plan_is_whole() -> None:
    asked = study_params(load_params(PARAMS_FILE)).study
    assert set(asked.methods) == set(METHODS)
    assert {*asked.scenarios, *asked.rater_scenarios, "clean"} == set(SCENARIOS)


def test_neighbouring_seeds_of_the_project_differ_in_split_or_in_training_alone() -> None:
    pairs = [parse_seed(seed) for seed in load_params(PARAMS_FILE).study.seeds]
    assert all((a[0] == b[0]) != (a[1] == b[1]) for a, b in itertools.pairwise(pairs))
    assert len({split for split, _ in pairs}) >= 3
    assert set(load_params(PARAMS_FILE).study.scenario_seeds) <= set(load_params(PARAMS_FILE).study.seeds)


@pytest.mark.parametrize("method", ALL)
def test_the_settings_that_a_method_lays_over_are_accepted(method: str) -> None:
    params = lay_over(study_settings(), ALL[method].settings)
    tree = params.model_dump(mode="json")
    for setting in ALL[method].settings:
        key, _, value = setting.partition("=")
        found = functools.reduce(lambda node, name: node[name], key.split("."), tree)
        meant = yaml.safe_load(value)
        assert found == (float(meant) if isinstance(found, float) else meant)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[str]]]:
    """A command in a folder with tiny settings; gives the exit code and the lines on stderr."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(study_settings().model_dump(mode="json")))

    def ran(*arguments: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["cardiofed", "study", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), capsys.readouterr().err.splitlines()

    return ran


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("nosuch", "clean", "1-1"), "nosuch"),
        (("rated", "nosuch", "1-1"), "nosuch"),
        (("rated", "clean", "one"), "'one' is no pair of seeds"),
    ],
)
def test_a_mistyped_cell_ends_in_three_lines_and_writes_nothing(
    run: Callable[..., tuple[int, list[str]]], tmp_path: Path, arguments: tuple[str, ...], fault: str
) -> None:
    code, said = run("cell", *arguments)
    assert code == ConfigError.exit_code
    assert [line.split(":")[0] for line in said] == ["error", "  where", "  mend"]
    assert fault in said[0]
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
