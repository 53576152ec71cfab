"""What a study that was interrupted still lacks."""

from __future__ import annotations

import pandas as pd

from tasks.study_report.rows import CELL


def missing_cells(
    cases: pd.DataFrame, cells: pd.DataFrame, planned: pd.DataFrame | None = None
) -> pd.DataFrame:
    """What the study still lacks.

    Args:
        cases: as for ``method_table``.
        cells: as for ``method_table``.
        planned: columns method, scenario, split_seed, train_seed; without it every method seen in a scenario is
            expected under every pair of seeds seen in that scenario.

    Returns:
        Columns of ``planned`` and ``lacks``: ``run`` (neither costs nor test cases), ``costs`` or ``test cases``.
    """
    ran, tested = (set(map(tuple, frame[CELL].to_numpy().tolist())) for frame in (cells, cases))
    wanted = (
        sorted(_full_grid(ran | tested))
        if planned is None
        else [tuple(row) for row in planned[CELL].to_numpy().tolist()]
    )
    lacks = [
        (c, "run" if c not in ran | tested else "costs" if c not in ran else "test cases") for c in wanted
    ]
    rows = [(*cell, what) for cell, what in lacks if cell not in ran & tested]
    return pd.DataFrame(rows, columns=[*CELL, "lacks"])


def lacking_methods(lacking: pd.DataFrame, scenario: str) -> tuple[str, ...]:
    """Methods that some seeds of a scenario are missing of, each once.

    Args:
        lacking: of ``missing_cells``.
        scenario: which one.

    Returns:
        Their names in the order of the plan.
    """
    return tuple(dict.fromkeys(lacking.loc[lacking["scenario"] == scenario, "method"]))


def _full_grid(cells: set[tuple[object, ...]]) -> list[tuple[object, ...]]:
    seeds = {(scenario, s, t) for _, scenario, s, t in cells}
    kinds = {(method, scenario) for method, scenario, *_ in cells}
    return [(m, c, s, t) for m, c in kinds for scenario, s, t in seeds if scenario == c]
