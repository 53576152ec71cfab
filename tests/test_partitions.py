"""Partitions: every patient at one site, every site large enough, the shape that was asked for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import CohortError
from model.partitions import FEWEST, Sites, by_group, imbalanced, mixed_clinic

GROUPS = ("DCM", "HCM", "MINF", "NOR", "RV")
ACDC = [(f"patient{10 * i + j:03d}", group) for i, group in enumerate(GROUPS) for j in range(10)]
GROUP_OF = dict(ACDC)
WAYS = ("group", "imbalanced", "clinic")
few = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 2**31 - 1)


def _share_out(way: str, patients: list[tuple[str, str]], seed: int = 1) -> Sites:
    rng = np.random.default_rng(seed)
    if way == "group":
        return by_group(patients)
    return imbalanced(patients, 5, rng) if way == "imbalanced" else mixed_clinic(patients, rng)


@pytest.mark.parametrize("way", WAYS)
@few
@given(seed=seeds)
def test_every_patient_stands_at_one_of_five_sites_once(way: str, seed: int) -> None:
    sites = _share_out(way, ACDC, seed)
    assert sorted(patient for members in sites.values() for patient in members) == sorted(GROUP_OF)
    assert len(sites) == 5
    assert min(map(len, sites.values())) >= FEWEST


@pytest.mark.parametrize("way", WAYS)
def test_the_order_of_the_list_does_not_matter(way: str) -> None:
    assert _share_out(way, ACDC) == _share_out(way, ACDC[::-1])


@pytest.mark.parametrize("way", ["imbalanced", "clinic"])
def test_the_seed_decides_who_goes_where(way: str) -> None:
    assert _share_out(way, ACDC, 1) == _share_out(way, ACDC, 1)
    assert len({str(_share_out(way, ACDC, seed)) for seed in range(10)}) == 10


def test_by_group_keeps_groups_together() -> None:
    sites = by_group(ACDC)
    assert list(sites) == list(GROUPS)
    assert all({GROUP_OF[patient] for patient in members} == {site} for site, members in sites.items())


def test_one_of_the_imbalanced_sites_holds_half() -> None:
    sizes = {site: len(members) for site, members in _share_out("imbalanced", ACDC).items()}
    assert sizes == {"large": 25, "small-1": 7, "small-2": 6, "small-3": 6, "small-4": 6}


@few
@given(seed=seeds)
def test_imbalanced_sites_mix_all_groups_in_proportion(seed: int) -> None:
    for members in _share_out("imbalanced", ACDC, seed).values():
        counts = Counter(GROUP_OF[patient] for patient in members)
        assert all(abs(counts[group] - len(members) / 5) <= 1 for group in GROUPS)


@few
@given(
    sizes=st.lists(st.integers(4, 15), min_size=3, max_size=6),
    n_sites=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_any_cohort_is_shared_out_whole_or_refused(sizes: list[int], n_sites: int, seed: int) -> None:
    patients = [(f"{group}-{i}", f"g{group}") for group, size in enumerate(sizes) for i in range(size)]
    rng = np.random.default_rng(seed)
    for share_out in (lambda: imbalanced(patients, n_sites, rng), lambda: mixed_clinic(patients, rng)):
        try:
            sites = share_out()
        except CohortError as e:
            assert "a site needs" in e.what
            continue
        assert sorted(p for members in sites.values() for p in members) == sorted(p for p, _ in patients)
        assert min(map(len, sites.values())) >= FEWEST


@few
@given(seed=seeds)
def test_the_clinic_has_one_patient_of_every_hospital(seed: int) -> None:
    sites = _share_out("clinic", ACDC, seed)
    assert sorted(GROUP_OF[patient] for patient in sites["clinic"]) == ["HCM", "MINF", "NOR", "RV"]
    assert sorted(map(len, sites.values())) == [4, 11, 11, 12, 12]
    for site in ("HCM", "MINF", "NOR", "RV"):
        groups = Counter(GROUP_OF[patient] for patient in sites[site])
        assert groups.keys() == {site, "DCM"}
        assert groups[site] == 9


def test_the_smallest_group_is_the_one_without_a_hospital() -> None:
    sites = _share_out("clinic", [row for row in ACDC if row[0] != "patient039"])  # a patient of NOR
    assert sorted(sites) == ["DCM", "HCM", "MINF", "RV", "clinic"]


def test_with_two_hospitals_the_clinic_takes_two_of_each() -> None:
    sites = _share_out("clinic", ACDC[:30])
    assert Counter(GROUP_OF[patient] for patient in sites["clinic"]) == {"HCM": 2, "MINF": 2}


@pytest.mark.parametrize("way", WAYS)
def test_a_patient_listed_twice_is_refused(way: str) -> None:
    with pytest.raises(CohortError, match="patient007"):
        _share_out(way, [*ACDC, ("patient007", "RV")])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("patients", [[], ACDC[:3], ACDC[::5]])
def test_too_few_patients_are_refused(way: str, patients: list[tuple[str, str]]) -> None:
    with pytest.raises(CohortError):
        _share_out(way, patients)


def test_one_site_cannot_be_imbalanced() -> None:
    with pytest.raises(CohortError, match="1 sites"):
        imbalanced(ACDC, 1, np.random.default_rng(1))


def test_a_group_called_clinic_is_refused() -> None:
    with pytest.raises(CohortError, match="clinic"):
        mixed_clinic([*ACDC, ("p", "clinic")], np.random.default_rng(1))
