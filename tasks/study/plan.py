"""Which cells the settings ask for."""

from __future__ import annotations

from collections.abc import Mapping

from model.errors import ConfigError
from tasks.settings import Params
from tasks.study.cell import Cell
from tasks.study.choices import ALL
from tasks.study.methods import METHODS, Method
from tasks.study.scenarios import SCENARIOS


def study_params(params: Params) -> Params:
    """The settings with the study's own rounds in place of the federation's.

    Args:
        params: of ``params.yaml``.

    Returns:
        New settings.

    Raises:
        ConfigError: the study names a method or scenario that does not exist.
    """
    asked = params.study
    _refuse_unknown(
        {*asked.methods, *asked.defences, *asked.rating, *asked.rivals},
        METHODS,
        {*asked.scenarios, *asked.rater_scenarios, *asked.rival_scenarios},
    )
    _refuse_unknown({*asked.choices}, ALL, set())
    federation = params.federation.model_copy(update={"rounds": asked.rounds})
    return params.model_copy(update={"federation": federation})


def checked_cell(cell: Cell) -> Cell:
    """Refuse a cell whose method or scenario does not exist, or whose scenario means nothing to the method.

    Args:
        cell: as the command line names it.

    Returns:
        The cell itself.

    Raises:
        ConfigError: names what is unknown, and what there is.
    """
    _refuse_unknown({cell.method}, ALL, {cell.scenario})
    if not ALL[cell.method].is_reached_by(SCENARIOS[cell.scenario]):
        what = f"scenario {cell.scenario} changes nothing for {cell.method}"
        raise ConfigError(what, "study", f"run {cell.method} in the scenario clean")
    return cell


def _refuse_unknown(methods: set[str], known_methods: Mapping[str, Method], scenarios: set[str]) -> None:
    unknown = sorted(methods - set(known_methods)) + sorted(scenarios - set(SCENARIOS))
    if unknown:
        known = f"methods: {', '.join(known_methods)}; scenarios: {', '.join(SCENARIOS)}"
        raise ConfigError(f"the study does not know {', '.join(unknown)}", "study", known)


def planned_cells(params: Params) -> list[Cell]:
    """Cells that the test is opened for.

    Args:
        params: of :func:`study_params`.

    Returns:
        All methods in the clean federation, then the scenarios with their methods, each block seed by seed.

    Raises:
        ConfigError: a scenario means nothing to one of its methods.
    """
    asked = params.study
    blocks = [
        (asked.seeds, asked.methods, ("clean",)),
        (asked.scenario_seeds, asked.defences, asked.scenarios),
        (asked.scenario_seeds, asked.rating, asked.rater_scenarios),
        (asked.scenario_seeds, asked.rivals, asked.rival_scenarios),
    ]
    cells = [
        Cell(method, scenario, *parse_seed(seed))
        for seeds, methods, scenarios in blocks
        for seed in seeds
        for scenario in scenarios
        for method in methods
    ]
    return [checked_cell(cell) for cell in dict.fromkeys(cells)]


def parse_seed(text: str) -> tuple[int, int]:
    """Split and training seed of ``1-2``.

    Args:
        text: two whole numbers and a hyphen.

    Returns:
        Both numbers.

    Raises:
        ConfigError: anything else.
    """
    split, hyphen, train = text.partition("-")
    if not (hyphen and text.isascii() and split.isdigit() and train.isdigit()):
        raise ConfigError(f"'{text}' is no pair of seeds", "study seed", "write SPLIT-TRAINING, such as 1-1")
    return int(split), int(train)


def choice_cells(params: Params) -> list[Cell]:
    """Cells that settings are chosen by, on validation, defaults among them; the test is not opened for them."""
    asked = params.study
    return [
        Cell(choice, "clean", *parse_seed(seed)) for seed in asked.choice_seeds for choice in asked.choices
    ]
