"""The gate refuses what harms one group though the mean improves, and decides nothing on a handful."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from model.errors import DataError, ReleaseRefusedError
from model.gate import Comparison, Goal, compare, pairs_of, pool
from tasks.clinical.agree import FEWEST
from tasks.files import sha256_bytes
from tasks.records import AgainstReleased, Architecture, Base
from tasks.release.decide import Decision, refuse_worse
from tasks.release.evidence import Evidence
from tasks.release.judge import judge_cells, undecided_findings, worse_findings
from tasks.release.paired import as_pairs, paired_cells, strata_of
from tasks.release.records import AS_SHIPPED, Finding
from tasks.release.validate import model_of

BASE = Base(
    sha256=sha256_bytes(b"base"),
    architecture=Architecture(channels=(4, 8)),
    spacing_mm=2.0,
    labels={"RV": 1, "MYO": 2, "LV": 3},
    source="phantoms",
    n_bytes=4,
    curve=(1.0,),
)
ML = {"RV": (120.0, 60.0), "MYO": (80.0, 85.0), "LV": (100.0, 40.0)}


def cases(
    per_group: int = 8, groups: tuple[str, ...] = ("HCM", "NOR"), vendor: str = "Siemens"
) -> pd.DataFrame:
    """Both models equal up to noise that is the patient's own, candidate a little better everywhere."""
    rng = np.random.default_rng(7)
    rows = []
    for group in groups:
        for k in range(per_group):
            for phase in (0, 1):
                for structure, ml in ML.items():
                    dice = 0.85 + 0.05 * rng.standard_normal() * 0.5
                    for model, gain in (
                        ("released", 0.0),
                        ("candidate", 0.02 + 0.002 * rng.standard_normal()),
                    ):
                        rows.append(
                            {
                                **{"model": model, "owner": "", "site": f"site-{k % 2}", "vendor": vendor},
                                **{"patient": f"{group}-{k}", "group": group, "phase": ("ED", "ES")[phase]},
                                **{"structure": structure, "dice": dice + gain, "hd95_mm": 8 - 20 * gain},
                                **{"true_ml": ml[phase], "pred_ml": ml[phase] + rng.normal(0, 0.5)},
                            }
                        )
    return pd.DataFrame(rows)


def harm(table: pd.DataFrame, column: str, change: float, **where: str) -> pd.DataFrame:
    """The candidate changed in one stratum."""
    chosen = table["model"] == "candidate"
    for name, value in where.items():
        chosen &= table[name] == value
    table.loc[chosen, column] += change
    return table


def judge(table: pd.DataFrame, fewest_told: int = 1, digits: int = 12) -> tuple[Finding, ...]:
    """The gate over what each site sums up of its own patients."""
    sites = [rows for _, rows in table.groupby("site")]
    strata: dict[str, set[str]] = {}
    for rows in sites:
        for kind, names in strata_of(rows).items():
            strata[kind] = strata.get(kind, set()) | names
    return judge_cells([cell for rows in sites for cell in paired_cells(rows, fewest_told, digits)], strata)


NOTHING = Evidence((), {}, ())


def places(findings: tuple[Finding, ...]) -> set[tuple[str, str]]:
    return {(finding.place, finding.metric) for finding in findings}


def decision(findings: tuple[Finding, ...]) -> Decision:
    return Decision(model_of(BASE, ()), (AS_SHIPPED, model_of(BASE, ())), findings, NOTHING)


def test_a_model_that_is_better_everywhere_passes() -> None:
    findings = judge(cases())
    assert not worse_findings(findings)
    assert not undecided_findings(findings)
    refuse_worse(decision(findings), 3)


def test_harm_to_one_structure_of_one_pathology_is_refused_though_the_mean_improves() -> None:
    table = harm(cases(), "dice", -0.03, group="HCM", structure="RV")
    means = table.groupby("model")["dice"].mean()
    assert means["candidate"] > means["released"]
    worse = worse_findings(judge(table))
    assert places(worse) == {("group HCM, RV", "dice")}
    with pytest.raises(
        ReleaseRefusedError, match=r"round 3 is worse than base as shipped in 1 of"
    ) as refusal:
        refuse_worse(decision(worse_findings(judge(table))), 3)
    assert refusal.value.where.startswith("group HCM, RV: Dice −0.0")
    assert "over 8 patients" in refusal.value.where
    assert refusal.value.exit_code == 10


def test_harm_to_one_vendor_is_refused() -> None:
    table = pd.concat([cases(vendor="Siemens"), cases(6, ("DCM",), vendor="GE")])
    worse = worse_findings(judge(harm(table, "hd95_mm", 3.0, vendor="GE", structure="MYO")))
    assert ("vendor GE, MYO", "hd95_mm") in places(worse)
    assert not any("Siemens" in place for place, _ in places(worse))


def test_harm_to_the_ejection_fraction_is_refused_where_dice_sees_none() -> None:
    worse = worse_findings(judge(harm(cases(), "pred_ml", 8.0, structure="LV", phase="ES")))
    assert {metric for _, metric in places(worse)} == {"ef_bias_percent", "ef_error_percent"}
    assert ("LV", "ef_bias_percent") in places(worse)


def test_a_handful_of_patients_does_not_decide_and_is_named() -> None:
    table = pd.concat([cases(), cases(FEWEST - 1, ("DCM",))])
    findings = judge(harm(table, "dice", -0.5, group="DCM", structure="RV"))
    of_few = [f for f in findings if f.stratum == "DCM"]
    assert {f.verdict for f in of_few} == {"not decidable"}
    assert all(f.low is None and f.patients == FEWEST - 1 for f in of_few)
    assert any(f.difference is not None and f.difference < -0.4 for f in of_few)


def test_an_undefined_case_is_left_out_of_both_sides_and_counted() -> None:
    table = cases()
    lost = (table["model"] == "candidate") & (table["patient"] == "HCM-0") & (table["structure"] == "RV")
    table.loc[lost, "hd95_mm"] = np.nan
    (found,) = (f for f in judge(table) if f.place == "RV" and f.metric == "hd95_mm")
    assert (found.patients, found.left_out) == (15, 1)


def test_the_same_patients_give_the_same_findings_in_any_order() -> None:
    table = cases()
    assert judge(table) == judge(table.sample(frac=1, random_state=3))


def compared(candidate: np.ndarray, released: np.ndarray, goal: Goal = "higher") -> Comparison:
    return compare(pairs_of(candidate, released), goal, fewest=6)


def test_a_bias_of_the_other_sign_and_less_size_is_no_harm() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 10)
    found = compared(-1 + noise, 3 + noise, "small")
    assert found.difference == pytest.approx(-2, abs=0.2) and found.verdict == "not worse"
    assert compared(3 + noise, -1 + noise, "small").verdict == "worse"


def test_the_interval_of_a_bias_is_that_of_the_values_turned_to_a_positive_mean() -> None:
    rng = np.random.default_rng(3)
    candidate, released = rng.normal(-2, 1, 12), rng.normal(1, 1, 12)
    by_sums, by_hand = compared(candidate, released, "small"), compared(-candidate, released, "lower")
    assert (by_sums.low, by_sums.high) == pytest.approx((by_hand.low, by_hand.high))


def test_the_interval_is_students_as_scipy_computes_it() -> None:
    rng = np.random.default_rng(4)
    candidate, released = rng.normal(0.8, 0.1, 9), rng.normal(0.82, 0.1, 9)
    found, oracle = compared(candidate, released), stats.ttest_rel(candidate, released).confidence_interval()
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(0, 2**32))
def test_pooled_sums_are_those_of_all_patients_side_by_side(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sites = [(rng.normal(5, 2, n), rng.normal(4, 1, n)) for n in sizes]
    pooled = pool([pairs_of(*site) for site in sites])
    whole = pairs_of(*(np.concatenate(side) for side in zip(*sites, strict=True)))
    assert vars(pooled) == pytest.approx(vars(whole), nan_ok=True)


def test_models_that_do_not_differ_are_rarely_called_worse() -> None:
    """By chance about one in forty."""
    rng = np.random.default_rng(5)
    for goal in ("higher", "lower", "small"):
        verdicts = [compared(*rng.normal(0, 1, (2, 20)), goal).verdict for _ in range(400)]
        assert verdicts.count("worse") / len(verdicts) < 0.05


def test_unpaired_or_undefined_values_are_refused() -> None:
    with pytest.raises(DataError, match="same patients"):
        pairs_of(np.zeros(3), np.zeros(2))
    with pytest.raises(DataError, match="not finite"):
        pairs_of(np.array([math.nan]), np.zeros(1))


def test_a_larger_error_of_both_signs_is_refused_where_the_bias_sees_none() -> None:
    table = cases(10)
    chosen = (table["model"] == "candidate") & (table["structure"] == "LV") & (table["phase"] == "ES")
    number = table["patient"].str.split("-").str[1].astype(int)
    table.loc[chosen, "pred_ml"] += np.where((number[chosen] // 2) % 2, 9.0, -9.0)
    assert ("LV", "ef_error_percent") in places(worse_findings(judge(table)))
    assert ("LV", "ef_bias_percent") not in places(worse_findings(judge(table)))


# --- what leaves a site


def test_a_cell_of_few_patients_never_leaves_a_site_nor_one_from_which_it_would_follow() -> None:
    table = pd.concat([cases(14, ("HCM",)), cases(10, ("NOR",)), cases(4, ("DCM",))])
    of_site = table[table["site"] == "site-0"]  # 7 HCM, 5 NOR, 2 DCM
    told = {cell.stratum: cell.patients for cell in paired_cells(of_site, 5, 4) if cell.kind == "group"}
    assert told == {"HCM": 7}, "NOR goes with DCM, which is what remains of all patients"
    assert all(cell.patients >= 5 for cell in paired_cells(of_site, 5, 4))


def test_undefined_values_of_a_few_are_neither_told_nor_to_be_reckoned() -> None:
    table = cases(12, ("HCM", "NOR"))
    of_site = table[table["site"] == "site-0"].copy()  # 6 and 6
    lost = of_site["patient"].isin(["NOR-0", "NOR-2"]) & (of_site["structure"] == "RV")
    of_site.loc[lost, "hd95_mm"] = np.nan
    cells = {c.place: c for c in paired_cells(of_site, 5, 4)}
    assert ("group", "NOR", "RV", "hd95_mm") not in cells and ("group", "HCM", "RV", "hd95_mm") not in cells
    assert ("structure", "all patients", "RV", "hd95_mm") not in cells, (
        "with another round's it would tell of two"
    )
    assert cells["structure", "all patients", "RV", "dice"].left_out == 0


def test_what_sites_tell_judges_as_their_patients_would_where_no_cell_is_small() -> None:
    table = harm(cases(14), "dice", -0.03, group="HCM", structure="RV")
    here, told = judge(table), judge(table, fewest_told=5, digits=4)
    assert [(f.place, f.metric, f.patients, f.verdict) for f in here] == [
        (f.place, f.metric, f.patients, f.verdict) for f in told
    ]
    assert places(worse_findings(told)) == {("group HCM, RV", "dice")}
    lows = [
        (a.low, b.low) for a, b in zip(here, told, strict=True) if a.low is not None and b.low is not None
    ]
    assert all(a == pytest.approx(b, abs=2e-3) for a, b in lows)


def test_a_stratum_of_which_nobody_told_enough_is_there_and_not_decided() -> None:
    table = pd.concat([cases(14), cases(6, ("DCM",))])
    few = [f for f in judge(table, fewest_told=5) if f.stratum == "DCM"]
    assert few and {(f.patients, f.verdict, f.difference) for f in few} == {(0, "not decidable", None)}


def test_cells_hold_names_of_strata_and_numbers_alone() -> None:
    cells = paired_cells(cases(12), 5, 4)
    text = "".join(cell.model_dump_json() for cell in cells)
    assert cells and not any(f"{group}-{k}" in text for group in ("HCM", "NOR") for k in range(12))
    assert all(as_pairs(cell).n for cell in cells)


def test_numbers_beyond_all_hearts_are_left_out_and_not_sent() -> None:
    table = cases(12)
    wild = (table["model"] == "candidate") & (table["structure"] == "LV") & (table["phase"] == "ED")
    table.loc[wild, "pred_ml"] = 1e-12
    metrics = {(c.structure, c.metric) for c in paired_cells(table[table["site"] == "site-0"])}
    assert ("LV", "ef_bias_percent") not in metrics and ("RV", "ef_bias_percent") in metrics


@pytest.mark.parametrize("harm", ["twice", "huge", "nobody", "unknown"])
def test_cells_that_no_hospital_could_mean_are_refused(harm: str) -> None:
    cells = [json.loads(cell.model_dump_json()) for cell in paired_cells(cases(12), 5, 4)]
    change = {"huge": {"candidate": 1e300}, "nobody": {"patients": 0}, "unknown": {"metric": "weight"}}
    cells[0] |= change.get(harm, {})
    told = {"release": "v1.0.0", "model_sha256": "0" * 64, "cells": [*cells, *cells[: harm == "twice"]]}
    with pytest.raises(ValidationError):
        AgainstReleased.model_validate(told)
