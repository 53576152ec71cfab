"""Every patient stands on exactly one side, and every side has someone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import CohortError
from model.split import SPLITS, split_patients, split_sizes

GROUPS = st.lists(st.sampled_from(["NOR", "DCM", "HCM", "MINF", "RV"]), min_size=3, max_size=60)
FRACTIONS = st.tuples(st.floats(0.05, 0.4), st.floats(0.05, 0.4))


def _split(groups: list[str], validation: float, test: float, seed: int = 1) -> tuple[str, ...]:
    return split_patients(groups, validation, test, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("patients", "sizes"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (7, (5, 1, 1)), (10, (6, 2, 2)), (12, (8, 2, 2))]
)
def test_fractions_of_a_fifth_round_sensibly(patients: int, sizes: tuple[int, int, int]) -> None:
    assert tuple(split_sizes(patients, 0.2, 0.2).values()) == sizes


@given(GROUPS, FRACTIONS, st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_every_patient_has_one_side_and_every_side_its_size(
    groups: list[str], fractions: tuple[float, float], seed: int
) -> None:
    sides = _split(groups, *fractions, seed)
    assert len(sides) == len(groups)
    assert Counter(sides) == split_sizes(len(groups), *fractions)
    assert all(side in sides for side in SPLITS)


@given(GROUPS, FRACTIONS, st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_same_seed_gives_same_split(groups: list[str], fractions: tuple[float, float], seed: int) -> None:
    assert _split(groups, *fractions, seed) == _split(groups, *fractions, seed)


def test_another_seed_gives_another_split() -> None:
    assert len({_split(["NOR"] * 10, 0.2, 0.2, seed) for seed in range(10)}) > 5


@pytest.mark.parametrize("seed", range(10))
def test_each_group_stands_on_each_side_in_proportion(seed: int) -> None:
    groups = ["NOR"] * 10 + ["DCM"] * 10 + ["RV"] * 20
    counts = Counter(zip(groups, _split(groups, 0.2, 0.2, seed), strict=True))
    for group, size in Counter(groups).items():
        for side, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
            assert abs(counts[group, side] - share * size) <= 1


def test_fewer_than_three_patients_are_refused() -> None:
    with pytest.raises(CohortError, match="2 patients"):
        _split(["NOR", "DCM"], 0.2, 0.2)
