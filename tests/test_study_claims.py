"""The study's claims: met, not met or unclear, by numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from study_frames import ROLES, claims, study


def test_every_claim_is_decided_by_the_numbers() -> None:
    met = {claim: row["met"] for claim, row in claims(*study()).items()}
    assert met == {
        "Honest sites keep their weight in a clean federation": "yes",
        "In a clean federation rated costs little enough to be the default": "yes",
        "Under attack: sign-flip": "yes",
        "With a faulty rater: liar": "no",
        "Adapters alone reach fedavg": "yes",
        "On other sites' patients adapted models against local": "yes",
        "On other sites' patients the global model against local": "yes",
        "On own patients adapted models against local": "yes",
    }


def test_the_plain_merge_stands_beside_the_rated_method_under_attack_and_with_a_faulty_rater_it_does_not() -> (
    None
):
    found = claims(*study())
    measured = found["Under attack: sign-flip"]["measured"]
    assert measured.startswith("rated −0.010 (95 % interval −0.010 to −0.010; 2 seeds, 4 patients)")
    assert "plain −0.200" in measured
    assert "plain" not in found["With a faulty rater: liar"]["measured"]


def test_a_scenario_claim_names_the_twin_it_is_decided_by() -> None:
    cases, cells = study()
    shifted = [frame.replace({"scenario": {"clean": "scanner-shift"}}) for frame in (cases, cells)]
    other = replace(ROLES, beside={"sign-flip": "scanner-shift", "liar": "clean"})
    found = claims(*shifted, other)
    assert found["Under attack: sign-flip"]["met"] == "yes"
    assert found["Under attack: sign-flip"]["target"].endswith("compared with itself in scanner-shift")
    assert found["With a faulty rater: liar"]["target"].endswith("compared with itself in clean")
    assert found["With a faulty rater: liar"]["measured"] == "rated not run with its clean twin"
    assert found["With a faulty rater: liar"]["met"] == "unclear"


def test_a_defence_that_costs_exactly_half_a_point_may_be_the_default_and_a_dearer_one_may_not() -> None:
    name = "In a clean federation rated costs little enough to be the default"
    cases, cells = study()
    clean = (cases["method"] == "rated") & (cases["scenario"] == "clean") & (cases["model"] == "global")
    assert claims(cases, cells)[name]["measured"].startswith("−0.002")
    assert list(claims(cases, cells)).index(name) == 1
    for more, met in ((0.003, "yes"), (0.0031, "no")):
        assert (
            claims(cases.assign(dice=cases["dice"].where(~clean, cases["dice"] - more)), cells)[name]["met"]
            == met
        )
    gone = [frame[frame["method"] != "plain"] for frame in (cases, cells)]
    assert claims(*gone)[name]["met"] == "unclear"


def test_weights_are_listed_for_every_seed_and_one_low_weight_breaks_the_claim() -> None:
    name = "Honest sites keep their weight in a clean federation"
    assert claims(*study())[name]["measured"] == (
        "mean 0.930, lowest 0.60 (split/training seed 1/1: 0.950, lowest 0.80; 2/1: 0.910, lowest 0.60)"
    )
    cases, cells = study()
    cells.loc[cells["weights_min"] == 0.6, "weights_min"] = 0.49
    assert claims(cases, cells)[name]["met"] == "no"
    cells.loc[cells["weights_min"] == 0.49, "weights_min"] = np.nan
    unknown = claims(cases, cells)[name]
    assert (unknown["met"], "1 seed without weights" in unknown["measured"]) == ("unclear", True)


def test_too_many_bytes_break_the_reference_claim_and_an_interval_over_the_margin_leaves_it_open() -> None:
    cases, cells = study()
    heavy = cells.assign(upload_bytes=4000.0)
    assert claims(cases, heavy)["Adapters alone reach fedavg"]["met"] == "no"
    rated = (cases["method"] == "rated") & (cases["model"] == "global") & (cases["site"] == "a")
    cases.loc[rated & (cases["patient"] == "p0"), "dice"] -= 0.02
    assert claims(cases, cells)["Adapters alone reach fedavg"]["met"] == "unclear"


def test_models_worse_than_training_alone_are_called_so() -> None:
    cases, cells = study()
    cases.loc[(cases["method"] == "rated") & (cases["scenario"] == "clean"), "dice"] -= 0.3
    met = {claim: row["met"] for claim, row in claims(cases, cells).items()}
    assert met["On other sites' patients adapted models against local"] == "no"
    assert met["On own patients adapted models against local"] == "no"
    assert met["Adapters alone reach fedavg"] == "no"
