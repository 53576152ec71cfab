"""The table of seeds: what another split does to Dice, and what another training seed does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import pandas as pd

from tasks.study_report.estimates import seed_means
from tasks.study_report.rows import SEEDS, patients_of, prepare

Seed = Literal["split_seed", "train_seed"]


@dataclass(frozen=True)
class Change:
    """How far Dice is apart under seeds that differ in one of both alone.

    Attributes:
        pairs: the columns that were compared.
        mean: of the absolute differences, over methods and pairs; NaN without pairs.
    """

    pairs: tuple[tuple[str, str], ...]
    mean: float


def seed_table(
    cases: pd.DataFrame, cells: pd.DataFrame, methods: Sequence[str], scenario: str = "clean"
) -> pd.DataFrame:
    """Dice of methods under every pair of seeds.

    Args:
        cases: as for ``method_table``.
        cells: as for ``method_table``.
        methods: whose, in this order.
        scenario: which one.

    Returns:
        Index method, a column ``split/training`` per pair of seeds in rising order; empty without methods.

    Raises:
        DataError: as for ``method_table``.
    """
    rows = prepare(cases, cells)
    found = {method: seed_means(patients_of(rows, method, scenario)) for method in methods}
    table = pd.DataFrame(found).sort_index().T.rename_axis("method")
    return table.set_axis(["/".join(map(str, pair)) for pair in table.columns.tolist()], axis=1)


def change_of(table: pd.DataFrame, seed: Seed) -> Change:
    """What a change of one seed alone does to Dice.

    Args:
        table: of ``seed_table``.
        seed: the one that changes; the other is the same.

    Returns:
        The mean absolute difference between all columns that share the other seed.
    """
    shared, names = 1 - SEEDS.index(seed), [str(name) for name in table.columns]
    pairs = [(a, b) for a, b in combinations(names, 2) if a.split("/")[shared] == b.split("/")[shared]]
    apart = [float(gap) for a, b in pairs for gap in (table[a] - table[b]).abs()]
    return Change(tuple(pairs), sum(apart) / len(apart) if apart else math.nan)
