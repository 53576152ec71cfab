"""The gate refuses what harms one group though the mean improves, and decides nothing on a handful."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from model.errors import DataError, ReleaseRefusedError
from model.gate import compare_bias, compare_means
from tasks.clinical.agree import FEWEST
from tasks.files import sha256_bytes
from tasks.records import Architecture, Base
from tasks.release.decide import Decision, refuse_worse
from tasks.release.judge import judge_strata, undecided_findings, worse_findings
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


def places(findings: tuple[Finding, ...]) -> set[tuple[str, str]]:
    return {(finding.place, finding.metric) for finding in findings}


def decision(findings: tuple[Finding, ...]) -> Decision:
    return Decision(model_of(BASE, ()), (AS_SHIPPED, model_of(BASE, ())), findings, Path("cohort"))


def test_a_model_that_is_better_everywhere_passes() -> None:
    findings = judge_strata(cases(), seed=1)
    assert not worse_findings(findings)
    assert not undecided_findings(findings)
    refuse_worse(decision(findings), 3)


def test_harm_to_one_structure_of_one_pathology_is_refused_though_the_mean_improves() -> None:
    table = harm(cases(), "dice", -0.03, group="HCM", structure="RV")
    means = table.groupby("model")["dice"].mean()
    assert means["candidate"] > means["released"]
    worse = worse_findings(judge_strata(table, seed=1))
    assert places(worse) == {("group HCM, RV", "dice")}
    with pytest.raises(
        ReleaseRefusedError, match=r"round 3 is worse than base as shipped in 1 of"
    ) as refusal:
        refuse_worse(decision(worse_findings(judge_strata(table, seed=1))), 3)
    assert refusal.value.where.startswith("group HCM, RV: Dice −0.0")
    assert "over 8 patients" in refusal.value.where
    assert refusal.value.exit_code == 10


def test_harm_to_one_vendor_is_refused() -> None:
    table = pd.concat([cases(vendor="Siemens"), cases(6, ("DCM",), vendor="GE")])
    worse = worse_findings(judge_strata(harm(table, "hd95_mm", 3.0, vendor="GE", structure="MYO"), seed=1))
    assert ("vendor GE, MYO", "hd95_mm") in places(worse)
    assert not any("Siemens" in place for place, _ in places(worse))


def test_harm_to_the_ejection_fraction_is_refused_where_dice_sees_none() -> None:
    worse = worse_findings(judge_strata(harm(cases(), "pred_ml", 8.0, structure="LV", phase="ES"), seed=1))
    assert {metric for _, metric in places(worse)} == {"ef_bias_percent"}
    assert ("LV", "ef_bias_percent") in places(worse)


def test_a_handful_of_patients_does_not_decide_and_is_named() -> None:
    table = pd.concat([cases(), cases(FEWEST - 1, ("DCM",))])
    findings = judge_strata(harm(table, "dice", -0.5, group="DCM", structure="RV"), seed=1)
    of_few = [f for f in findings if f.stratum == "DCM"]
    assert {f.verdict for f in of_few} == {"not decidable"}
    assert all(f.low is None and f.patients == FEWEST - 1 for f in of_few)
    assert any(f.difference is not None and f.difference < -0.4 for f in of_few)


def test_an_undefined_case_is_left_out_of_both_sides_and_counted() -> None:
    table = cases()
    lost = (table["model"] == "candidate") & (table["patient"] == "HCM-0") & (table["structure"] == "RV")
    table.loc[lost, "hd95_mm"] = np.nan
    (found,) = (f for f in judge_strata(table, seed=1) if f.place == "RV" and f.metric == "hd95_mm")
    assert (found.patients, found.left_out) == (15, 1)


def test_the_same_patients_give_the_same_findings_in_any_order() -> None:
    table = cases()
    assert judge_strata(table, seed=1) == judge_strata(table.sample(frac=1, random_state=3), seed=1)


def test_a_bias_of_the_other_sign_and_less_size_is_no_harm() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.1, 10)
    found = compare_bias(-1 + noise, 3 + noise, rng, fewest=6)
    assert (found.released, found.candidate) == pytest.approx((3, 1), abs=0.2)
    assert found.verdict == "not worse"
    assert compare_bias(3 + noise, -1 + noise, rng, fewest=6).verdict == "worse"


def test_models_that_do_not_differ_are_rarely_called_worse() -> None:
    """By chance at most about one in forty; percentile intervals of few patients are somewhat short."""
    rng = np.random.default_rng(5)
    verdicts = [
        compare_means(rng.normal(0, 1, 20), np.zeros(20), ["a"] * 20, rng, 6, True).verdict
        for _ in range(200)
    ]
    assert verdicts.count("worse") / len(verdicts) < 0.06


def test_unpaired_or_undefined_values_are_refused() -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(DataError, match="same patients"):
        compare_means(np.zeros(3), np.zeros(2), ["a"] * 3, rng, 6, True)
    with pytest.raises(DataError, match="not finite"):
        compare_bias(np.array([math.nan]), np.zeros(1), rng, 6)
