"""What measurements and doubts are worth: tables from numbers made by hand, and both commands on a tiny run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from federation_files import tiny_params, write_hospitals
from predict_files import SITE, write_run
from typer.testing import CliRunner

from flows.cli import app
from model.plausibility import AGREEMENT, CONFIDENCE
from tasks.clinical.flag_limits import best_limit, limit_markdown, limit_table
from tasks.clinical.phantom_truth import TRUE_MASKS, phantom_truth, truth_table
from tasks.cohort import SITES
from tasks.prepare import prepare


def flagged_rows() -> pd.DataFrame:
    """Four poor structures of low confidence, one of high; five good ones, one of low; one undefined."""
    sure = [0.5, 0.6, 0.7, 0.74, 0.95, 0.9, 0.92, 0.93, 0.96, 0.72, math.nan]
    return pd.DataFrame({"confidence": sure, "dice": [0.3] * 5 + [0.9] * 5 + [0.9]})


def test_a_limit_is_told_by_what_it_flags_and_what_it_leaves() -> None:
    (row,) = limit_table(flagged_rows(), "confidence", [0.75]).to_dict("records")
    assert (row["structures"], row["flagged"], row["poor"], row["poor_flagged"]) == (10, 5, 5, 4)
    assert row["good_flagged"] == 1
    assert row["dice_flagged"] == pytest.approx((4 * 0.3 + 0.9) / 5)
    assert row["dice_unflagged"] == pytest.approx((0.3 + 4 * 0.9) / 5)


def test_the_limit_is_the_highest_that_spares_nine_good_structures_in_ten() -> None:
    good = pd.DataFrame({"confidence": np.linspace(0.81, 0.99, 19), "dice": 0.9})  # a tenth: one of nineteen
    table = limit_table(pd.concat([good, flagged_rows()[:5]]), "confidence")
    assert best_limit(table) == pytest.approx(0.82)
    assert "| **0.82** | 5 of 24 | 0.42 | 0.87 | 4 of 5 | 1 of 19 |" in limit_markdown(table, 0.82)
    assert "0.83" not in limit_markdown(table, 0.82), "of the others every fifth"


def test_where_all_good_structures_are_flagged_no_limit_is_right() -> None:
    assert math.isnan(best_limit(limit_table(flagged_rows().assign(confidence=0.1), "confidence")))


def test_bias_and_error_stand_with_the_spread_between_seeds() -> None:
    rows = pd.DataFrame(
        {
            "seed": [1, 1, 2, 2],
            "measured": "global",
            **{"edv": [110.0, 90, 104, 100], "true_edv": 100.0},
            **{"esv": [40.0] * 4, "true_esv": 40.0, "ef": [60.0, math.nan, 60, 60], "true_ef": 60.0},
        }
    )
    table = truth_table(rows)
    assert "| global | 4 | bias +1.0 ± 1.4, error 6.0 ± 5.7 | bias +0.0 ± 0.0, error 0.0 ± 0.0 |" in table
    assert table.endswith("error 0.0 ± 0.0, 1 undefined |")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    write_run(root / "demo")
    (root / "demo" / "cohort" / SITE).rmdir()
    prepare(write_hospitals(tmp_path / "data"), "acdc", "folder", root / "demo" / "cohort", tiny_params())
    return root


def test_true_masks_are_within_two_percent_and_models_are_measured_beside_them(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.clinical.phantom_truth.SITES", SITES[:2])
    monkeypatch.setattr("tasks.clinical.phantom_truth.GROUPS", ("NOR", "HCM"))
    done = CliRunner().invoke(
        app, ["clinical", "volumes", "--runs", str(runs), "--seeds", "1"], catch_exceptions=False
    )
    assert done.exit_code == 0 and "| true masks | 4 |" in done.output and "| personal | 2 |" in done.output
    from tasks.workspace import open_workspace

    rows = phantom_truth(open_workspace(runs / "demo"), [1, 2])
    own = rows[rows["measured"] == TRUE_MASKS]
    for name in ("edv", "esv", "ef"):
        assert (np.abs(own[name] / own[f"true_{name}"] - 1) < 0.02).all()
    assert own.groupby("seed")["true_edv"].mean().nunique() == 2, "every seed draws hearts of its own"
    assert set(rows["measured"]) == {TRUE_MASKS, "base", "global", "personal"}


def test_limits_are_looked_at_on_validation_cases_alone(runs: Path, tmp_path: Path) -> None:
    table = pd.read_csv(runs / "demo" / "cohort" / SITE / "cases.csv")
    validation = set(table[table["split"] == "validation"]["patient"])
    for path in table[table["split"] != "validation"]["image"]:
        Path(path).unlink()  # whoever opened a test case would fail
    command = ["clinical", "flags", "--runs", str(runs), "--out", str(tmp_path / "rows.csv")]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert f"confidence: in force {CONFIDENCE:.2f}" in done.output
    assert f"agreement: in force {AGREEMENT:.2f}" in done.output
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert set(rows[rows["site"] == SITE]["patient"]) == validation
    assert rows[rows["site"] == SITE]["agreement"].notna().any(), "st-anna has a personal model"
    assert rows[rows["site"] != SITE]["agreement"].isna().all()
