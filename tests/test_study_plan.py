"""What the study runs: seeds, names, which cells the test is opened for, and a mistyped command."""

from __future__ import annotations

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
from tasks.study.methods import ALL, CHOICES, METHODS
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


@pytest.mark.parametrize("key", ["methods", "defences", "choices", "scenarios"])
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
    cell = Cell("fedavg", "liar", 1, 2)
    assert checked_cell(cell) == cell
    assert cell.name == "fedavg-liar-1-2"


def test_the_study_has_rounds_of_its_own() -> None:
    params = study_settings("federation.rounds=9", "study.rounds=4")
    assert params.federation.rounds == 4


def test_every_method_runs_clean_and_the_defences_in_every_scenario() -> None:
    params = study_settings(
        "study.methods=[fedavg,rated]",
        "study.defences=[rated]",
        "study.scenarios=[liar,late]",
        "study.seeds=[1-1,2-5]",
    )
    names = [cell.name for cell in planned_cells(params)]
    once = ["fedavg-clean", "rated-clean", "rated-liar", "rated-late"]
    assert names == [f"{name}-{seed}" for seed in ("1-1", "2-5") for name in once]


def test_no_cell_is_planned_twice() -> None:
    params = study_settings("study.scenarios=[clean,liar]", "study.seeds=[1-1,1-1]")
    planned = planned_cells(params)
    assert len(planned) == len(set(planned))


def test_choices_are_never_among_the_cells_that_the_test_is_opened_for() -> None:
    params = study_params(load_params(PARAMS_FILE))
    assert not {cell.method for cell in planned_cells(params)} & set(CHOICES)
    assert {cell.method for cell in choice_cells(params)} <= set(CHOICES)
    assert {cell.scenario for cell in choice_cells(params)} == {"clean"}
    assert not set(planned_cells(params)) & set(choice_cells(params))


def test_the_projects_own_plan_is_whole() -> None:
    params = study_params(load_params(PARAMS_FILE))
    assert set(params.study.methods) == set(METHODS)
    assert set(params.study.scenarios) | {"clean"} == set(SCENARIOS)


@pytest.mark.parametrize("method", ALL)
def test_the_settings_that_a_method_lays_over_are_accepted(method: str) -> None:
    params = lay_over(study_settings(), ALL[method].settings)
    tree = params.model_dump(mode="json")
    for setting in ALL[method].settings:
        key, _, value = setting.partition("=")
        section, name = key.split(".")
        meant = yaml.safe_load(value)
        assert tree[section][name] == (float(meant) if isinstance(tree[section][name], float) else meant)


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
