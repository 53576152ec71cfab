"""Which patients a site trains on, validates on and tests on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.errors import CohortError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)


def split_patients(
    groups: Sequence[str], validation: float, test: float, rng: np.random.Generator
) -> tuple[str, ...]:
    """Give every patient one side, each group spread over the sides as evenly as whole patients allow.

    Patients are shuffled, lined up group by group, and dealt one by one to the side that lags furthest behind
    its share; so any run of one group is shared out in proportion, and the totals are met exactly.

    Args:
        groups: each patient's pathology group.
        validation: fraction of the patients, 0…1; rounded half up, at least one patient.
        test: likewise.
        rng: decides the shuffles; the same state gives the same split.

    Returns:
        One of ``train``, ``validation``, ``test`` per patient, in the order of ``groups``.

    Raises:
        CohortError: fewer than three patients.
    """
    quota = split_sizes(len(groups), validation, test)
    sides = [TRAIN] * len(groups)
    dealt = dict.fromkeys(SPLITS, 0)
    for turn, patient in enumerate(_line_up(groups, rng), start=1):
        lag = {
            side: quota[side] * turn / len(groups) - dealt[side]
            for side in SPLITS
            if dealt[side] < quota[side]
        }
        sides[patient] = max(lag, key=lambda side: lag[side])
        dealt[sides[patient]] += 1
    return tuple(sides)


def split_few(patients: int) -> tuple[str, ...]:
    """The sides of a site too small for three: the first patient trains, the second validates, nobody is tested."""
    return (TRAIN, VALIDATION)[:patients]


def split_sizes(patients: int, validation: float, test: float) -> dict[str, int]:
    """Work out how many patients each side gets.

    Args:
        patients: of the site.
        validation: fraction of the patients, 0…1; rounded half up.
        test: likewise.

    Returns:
        Side → number of patients, at least one.

    Raises:
        CohortError: fewer than three patients.
    """
    if patients < len(SPLITS):
        raise CohortError(
            f"{patients} patients cannot stand on three sides",
            mend="join this site with another, or add patients",
        )
    held = {VALIDATION: _at_least_one(patients * validation), TEST: _at_least_one(patients * test)}
    while sum(held.values()) >= patients:
        held[max(held, key=lambda side: held[side])] -= 1
    return {TRAIN: patients - sum(held.values())} | held


def _at_least_one(share: float) -> int:
    return max(1, int(share + 0.5 + 1e-9))


def _line_up(groups: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Patient indices, groups together, groups and patients within them shuffled."""
    names = sorted(set(groups))
    place = dict(zip(names, rng.permutation(len(names)).tolist(), strict=True))
    shuffled = rng.permutation(len(groups)).tolist()
    return sorted(shuffled, key=lambda patient: place[groups[patient]])
