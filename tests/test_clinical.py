"""The clinical tables say what cases say, count what is undefined, and claim nothing of a few patients."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_files import write_run

from tasks.clinical.agree import FEWEST, QUANTITIES, agreement_metrics, agreement_table, patient_table
from tasks.clinical.picture import bland_altman
from tasks.clinical.strata import cell_of, stratum_table
from tasks.clinical.write import write_clinical
from tasks.report import render_report

TRUE_ML = {("LV", "ED"): 100, ("LV", "ES"): 40, ("RV", "ED"): 120, ("RV", "ES"): 60, ("MYO", "ED"): 80}
ALL = {**TRUE_ML, ("MYO", "ES"): 80}


def clinical_cases(patients: int, groups: tuple[str, ...] = ("NOR",), models: tuple[str, ...] = ("global",)):
    """Two sites; patient k is k ml larger than the first, and the model measures the LV at ED 10 ml too large."""
    rows = []
    for model in models:
        for site in ("a", "b"):
            for k in range(patients):
                for (structure, phase), ml in ALL.items():
                    extra = 10.0 if (structure, phase) == ("LV", "ED") else 0.0
                    dice = 0.8 + 0.01 * k + (0.05 if phase == "ED" else 0.0)
                    rows.append(
                        {
                            **{"model": model, "owner": "", "site": site, "patient": f"p{k}", "phase": phase},
                            **{"group": groups[k % len(groups)], "vendor": "v1" if site == "a" else ""},
                            **{"structure": structure, "dice": dice, "voe": 1 - dice, "hd_mm": 9.0},
                            **{
                                "hd95_mm": 5.0 + k,
                                "assd_mm": 2.0,
                                "true_ml": ml + k,
                                "pred_ml": ml + k + extra,
                            },
                            **{"dice_base": dice + 0.1, "hd95_mm_base": 4.0},
                        }
                    )
    return pd.DataFrame(rows)


def test_agreement_of_a_model_by_hand() -> None:
    table = agreement_table(patient_table(clinical_cases(5))).set_index("quantity")
    edv, esv = table.loc["lv_edv_ml"], table.loc["lv_esv_ml"]
    assert (edv["n"], edv["bias"], edv["mae"], edv["sd"]) == (10, 10, 10, 0)
    assert (esv["bias"], esv["lower"], esv["upper"], esv["icc"]) == (0, 0, 0, 1)
    fractions = [100 * (1 - (40 + k) / (110 + k)) - 100 * (1 - (40 + k) / (100 + k)) for k in range(5)]
    assert table.loc["lv_ef_percent", "bias"] == pytest.approx(np.mean(fractions))
    assert set(table.index) == {quantity.key for quantity in QUANTITIES}


def test_patients_of_one_name_at_two_sites_are_two() -> None:
    patients = patient_table(clinical_cases(3))
    assert len(patients) == len(patients.drop_duplicates(["site", "patient"])) == 6


def test_a_site_s_own_model_is_judged_on_own_patients_only() -> None:
    cases = pd.concat([clinical_cases(2).assign(model="personal", owner=owner) for owner in ("a", "b")])
    assert len(patient_table(cases)) == 4


def test_few_patients_have_a_bias_and_nothing_more() -> None:
    table = agreement_table(patient_table(clinical_cases(2))).set_index("quantity").loc["lv_edv_ml"]
    assert (table["n"], table["bias"]) == (4, 10)
    assert table[["bias_low", "sd", "lower", "upper", "icc", "icc_low"]].isna().all()


def test_a_missing_structure_is_counted_and_not_zero() -> None:
    cases = clinical_cases(4)
    of_rv = (cases["site"] == "a") & (cases["structure"] == "RV")
    cases.loc[of_rv, ["dice", "true_ml"]] = np.nan
    table = agreement_table(patient_table(cases)).set_index("quantity")
    assert table.loc["rv_edv_ml", ["n", "undefined", "bias"]].tolist() == [4, 4, 0]
    strata = stratum_table(cases, seed=1).query("kind == 'site' and stratum == 'a' and phase == 'both'")
    row = strata.query("structure == 'RV' and metric == 'dice'").iloc[0]
    assert (row["patients"], row["cases"], row["undefined"]) == (0, 8, 8)
    assert math.isnan(row["mean"])


def test_a_phase_that_is_missing_leaves_its_quantities_undefined() -> None:
    cases = clinical_cases(3)
    table = agreement_table(patient_table(cases[cases["phase"] == "ED"])).set_index("quantity")
    assert table.loc["lv_ef_percent", "undefined"] == 6
    assert table.loc["lv_edv_ml", "n"] == 6


def test_strata_are_means_over_patients_with_their_numbers() -> None:
    table = stratum_table(clinical_cases(4, groups=("NOR", "HCM")), seed=1)
    found = table.query("structure == 'LV' and metric == 'dice' and phase == 'ED'").set_index(
        ["kind", "stratum"]
    )
    assert found.loc[("all", "all patients"), ["patients", "mean"]].tolist() == [8, pytest.approx(0.865)]
    assert found.loc[("group", "HCM"), ["patients", "mean"]].tolist() == [4, pytest.approx(0.87)]
    assert found.loc[("level", "base"), "mean"] == pytest.approx(0.965)
    assert found.loc[("vendor", "v1"), "patients"] == found.loc[("vendor", "not stated"), "patients"] == 4
    assert set(found.loc["site"].index) == {"a", "b"}
    both = table.query("structure == 'LV' and metric == 'dice' and phase == 'both' and kind == 'all'").iloc[0]
    assert both["mean"] == pytest.approx(0.84)


def test_intervals_begin_at_the_stated_number_of_patients() -> None:
    rows = clinical_cases(FEWEST).query("structure == 'LV'")
    few = cell_of(rows[rows["site"] == "a"].query(f"patient != 'p{FEWEST - 1}'"), "dice", seed=1)
    enough = cell_of(rows[rows["site"] == "a"], "dice", seed=1)
    assert math.isnan(few.low)
    assert enough.low < enough.mean < enough.high


def test_the_bootstrap_is_that_of_the_mean_over_patients() -> None:
    """Close to the textbook's standard error, rescaled by √(n / (n − 1)) already."""
    rng = np.random.default_rng(4)
    rows = pd.DataFrame({"site": "a", "patient": range(200), "dice": rng.normal(0.8, 0.1, 200)})
    cell = cell_of(rows, "dice", seed=1)
    error = rows["dice"].std() / math.sqrt(200)
    assert (cell.high - cell.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)


def test_the_tables_lie_beside_the_cases_and_are_always_the_same(tmp_path: Path) -> None:
    file = tmp_path / "cases.csv"
    clinical_cases(3).to_csv(file, index=False)
    write_clinical(file, seed=1)
    first = {name: (tmp_path / name).read_bytes() for name in ("patients.csv", "agreement.csv", "strata.csv")}
    write_clinical(file, seed=1)
    assert first == {name: (tmp_path / name).read_bytes() for name in first}


def test_metrics_are_the_global_model_s() -> None:
    numbers = agreement_metrics(patient_table(clinical_cases(4)))
    assert numbers["global_lv_edv_ml_bias"] == 10
    assert numbers["global_lv_edv_ml_n"] == 8
    assert agreement_metrics(patient_table(clinical_cases(2)))["global_lv_ef_percent_icc"] is None


@pytest.mark.parametrize("patients", [1, 5])
def test_a_plot_is_drawn_of_few_and_of_many(patients: int) -> None:
    assert bland_altman(patient_table(clinical_cases(patients)), "global").startswith(b"\x89PNG")


def test_the_report_shows_numbers_of_patients_where_they_are_few(tmp_path: Path) -> None:
    root = write_run(tmp_path / "demo", rounds=1)
    clinical_cases(2, groups=("NOR", "HCM")).to_csv(root / "evaluation" / "cases.csv", index=False)
    page = render_report(root, root / "report.html", images=False).read_text()
    assert "<small>n = 2</small>" in page
    assert page.count("Bland-Altman plots,") == 1
    assert "Slice level" in page
    assert "HCM" in page
