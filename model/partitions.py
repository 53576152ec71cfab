"""Who holds which patients: ways to share one data set out among sites, for studies.

Every way gives each patient exactly one site and each site at least ``FEWEST`` patients, and depends on the patients
and the generator alone, not on the order in which they are listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from model.errors import CohortError

Patients = Sequence[tuple[str, str]]
"""Patient id and pathology group of every patient."""

Sites = dict[str, list[str]]
"""Site name → patient ids, both sorted."""

FEWEST = 4
CLINIC, LARGE, SMALL = "clinic", "large", "small"


def by_group(patients: Patients) -> Sites:
    """One site per pathology group, named after it.

    Args:
        patients: ids and groups.

    Returns:
        As many sites as groups.

    Raises:
        CohortError: a patient is listed twice, or a group has fewer than ``FEWEST`` patients.
    """
    return _checked(_grouped(patients))


def imbalanced(patients: Patients, n_sites: int, rng: np.random.Generator) -> Sites:
    """One site holds half of all patients, the others share the rest evenly; groups are mixed everywhere.

    Patients are lined up group by group, shuffled within each, and dealt one by one to the site that lags furthest
    behind its share; so every group is spread over the sites in proportion to their sizes.

    Args:
        patients: ids and groups.
        n_sites: sites in all, at least 2.
        rng: of the shuffles.

    Returns:
        ``large`` with ``⌊n / 2⌋`` patients, and ``small-1``, ``small-2``, … whose sizes differ by one at most, the
        first ones larger.

    Raises:
        CohortError: fewer than two sites, a patient listed twice, or too few patients for so many sites.
    """
    if n_sites < 2:
        raise CohortError(f"{n_sites} sites cannot be imbalanced", mend="ask for two sites or more")
    line = [patient for group in _shuffled(patients, rng).values() for patient in group]
    rest, others = len(line) - len(line) // 2, n_sites - 1
    quota = {LARGE: len(line) // 2}
    quota |= {f"{SMALL}-{i + 1}": rest // others + (i < rest % others) for i in range(others)}
    return _checked(_deal(line, quota))


def mixed_clinic(patients: Patients, rng: np.random.Generator) -> Sites:
    """Specialised hospitals of one group each, and one small clinic with a patient from each of them.

    The smallest group (of equals the first by name) gets no hospital; its patients are shared out evenly among the
    hospitals, so the number of sites stays the number of groups. The clinic takes one patient of each hospital's
    own group in turn, until every group has given one and the clinic has ``FEWEST``. On five groups of ten that
    makes hospitals of 12, 12, 11 and 11 patients and a clinic of 4, in which the group without a hospital is absent.

    Args:
        patients: ids and groups.
        rng: who goes to the clinic, and where the smallest group's patients go.

    Returns:
        A site per group but the smallest, named after it, and ``clinic``.

    Raises:
        CohortError: fewer than two groups, a group called ``clinic``, a patient listed twice, or a site left with
            fewer than ``FEWEST`` patients.
    """
    sites = _shuffled(patients, rng)
    if len(sites) < 2 or CLINIC in sites:
        raise CohortError(
            f"groups {sorted(sites)} make no hospitals beside a clinic",
            mend=f"give two groups or more, none called '{CLINIC}'",
        )
    shared = sites.pop(min(sites, key=lambda group: (len(sites[group]), group)))
    hospitals = list(sites)
    clinic = []
    for turn in range(max(FEWEST, len(hospitals))):
        giver = sites[hospitals[turn % len(hospitals)]]
        clinic += [giver.pop()] if giver else []
    for turn, patient in enumerate(shared):
        sites[hospitals[turn % len(hospitals)]].append(patient)
    return _checked(sites | {CLINIC: clinic})


def _grouped(patients: Patients) -> Sites:
    """Group → its patients, both sorted."""
    ids = sorted(patient for patient, _ in patients)
    twice = sorted({a for a, b in pairwise(ids) if a == b})
    if twice:
        raise CohortError(f"patients listed twice: {', '.join(twice)}", mend="list every patient once")
    groups: Sites = {}
    for patient, group in sorted(patients, key=lambda row: (row[1], row[0])):
        groups.setdefault(group, []).append(patient)
    return groups


def _shuffled(patients: Patients, rng: np.random.Generator) -> Sites:
    return {
        group: [members[i] for i in rng.permutation(len(members))]
        for group, members in _grouped(patients).items()
    }


def _deal(line: Sequence[str], quota: Mapping[str, int]) -> Sites:
    """Each in turn to the site furthest behind ``quota · turn / n``; of equals the first."""
    sites: Sites = {site: [] for site in quota}
    for turn, patient in enumerate(line, start=1):
        lag = {
            site: size * turn / len(line) - len(sites[site])
            for site, size in quota.items()
            if len(sites[site]) < size
        }
        sites[max(lag, key=lambda site: lag[site])].append(patient)
    return sites


def _checked(sites: Sites) -> Sites:
    small = {site: len(members) for site, members in sorted(sites.items()) if len(members) < FEWEST}
    if small or not sites:
        listed = ", ".join(f"{site} has {count}" for site, count in small.items()) or "there is none"
        raise CohortError(
            f"a site needs {FEWEST} patients: {listed}", mend="add patients, or make fewer sites"
        )
    return {site: sorted(members) for site, members in sorted(sites.items())}
