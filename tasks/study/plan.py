"""Which cells the settings ask for."""

from __future__ import annotations

from collections.abc import Mapping

from model.errors import ConfigError
from tasks.settings import Params
from tasks.study.cell import Cell
from tasks.study.methods import ALL, CHOICES, METHODS, Method
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
    _refuse_unknown({*asked.methods, *asked.defences}, METHODS, set(asked.scenarios))
    _refuse_unknown({*asked.choices}, CHOICES, set())
    federation = params.federation.model_copy(update={"rounds": asked.rounds})
    return params.model_copy(update={"federation": federation})


def checked_cell(cell: Cell) -> Cell:
    """Refuse a cell whose method or scenario does not exist.

    Args:
        cell: as the command line names it.

    Returns:
        The cell itself.

    Raises:
        ConfigError: names what is unknown, and what there is.
    """
    _refuse_unknown({cell.method}, ALL, {cell.scenario})
    return cell


def _refuse_unknown(methods: set[str], known_methods: Mapping[str, Method], scenarios: set[str]) -> None:
    unknown = sorted(methods - set(known_methods)) + sorted(scenarios - set(SCENARIOS))
    if unknown:
        known = f"methods: {', '.join(known_methods)}; scenarios: {', '.join(SCENARIOS)}"
        raise ConfigError(f"the study does not know {', '.join(unknown)}", "study", known)


def planned_cells(params: Params) -> list[Cell]:
    """Cells that the test is opened for: all methods in the clean federation, the defences in every scenario."""
    asked = params.study
    cells: dict[Cell, None] = {}
    for seed in asked.seeds:
        pair = parse_seed(seed)
        cells |= dict.fromkeys(Cell(method, "clean", *pair) for method in asked.methods)
        cells |= dict.fromkeys(
            Cell(method, scenario, *pair) for scenario in asked.scenarios for method in asked.defences
        )
    return list(cells)


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
    """Cells that settings are chosen by, on validation; the test is never opened for them."""
    asked = params.study
    return [
        Cell(choice, "clean", *parse_seed(seed)) for seed in asked.choice_seeds for choice in asked.choices
    ]
