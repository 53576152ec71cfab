"""A hub without a single case judges a release by what the hospitals tell of theirs: sums, sealed, none of a few."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from federation_files import SITES
from home_files import Homes, homes, large_homes
from typer.testing import CliRunner

from flows.cli import app
from model.errors import CardiofedError, ReleaseRefusedError, RoundError
from tasks.homes import HUB
from tasks.ledger import evaluation_key, find_record, get_record, put_record, released_key
from tasks.records import Evaluation
from tasks.release.channel import read_card
from tasks.release.decide import decide
from tasks.release.records import AS_SHIPPED, Finding, Released

__all__ = ["homes", "large_homes"]

pytestmark = pytest.mark.timeout(900)


def release(homes: Homes, number: int) -> CardiofedError | None:
    """The command at the hub; the error that it ended with."""
    command = [
        "release",
        "--home",
        str(homes.root / HUB),
        "--round",
        str(number),
        "--approved-by",
        "A. Example",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exception is None or isinstance(done.exception, CardiofedError), done.output
    return done.exception


def heard(homes: Homes, site: str, number: int) -> Evaluation:
    return get_record(homes.enter(HUB).store, evaluation_key(site, number), Evaluation)


def retell(homes: Homes, site: str, number: int, change: float, **where: str) -> None:
    """The hospital says that the new model's mean is another one, in all cells of a kind."""
    ws = homes.enter(site)
    said = get_record(ws.store, evaluation_key(site, number), Evaluation)
    assert said.against
    cells = tuple(
        cell.model_copy(update={"candidate": cell.candidate + change})
        if all(getattr(cell, name) == value for name, value in where.items())
        else cell
        for cell in said.against.cells
    )
    against = said.against.model_copy(update={"cells": cells})
    put_record(ws.store, evaluation_key(site, number), said.model_copy(update={"against": against}))


def better_everywhere(homes: Homes, number: int) -> None:
    """What the hospitals tell, as if the new model were good: what a tiny one learns in two steps is chance."""
    for site in SITES:
        ws = homes.enter(site)
        said = get_record(ws.store, evaluation_key(site, number), Evaluation)
        assert said.against
        gain = {"dice": 0.01, "hd95_mm": -0.1, "ef_bias_percent": 0.0, "ef_error_percent": -0.1}
        cells = tuple(
            cell.model_copy(update={"candidate": cell.released + gain[cell.metric], "difference_sd": 0.001})
            for cell in said.against.cells
        )
        against = said.against.model_copy(update={"cells": cells})
        put_record(ws.store, evaluation_key(site, number), said.model_copy(update={"against": against}))


def numbers(findings: tuple[Finding, ...]) -> dict[tuple[str, str], tuple[int, float | None]]:
    return {(f.place, f.metric): (f.patients, f.difference) for f in findings if f.kind == "structure"}


@pytest.mark.slow
def test_a_hub_without_cases_finds_what_a_machine_with_all_cases_finds(
    large_homes: Homes, tmp_path: Path
) -> None:
    large_homes.play_round(1)
    large_homes.keep_round(1)
    hub = large_homes.enter(HUB)
    for site in SITES:
        sent = hub.store.get(evaluation_key(site, 1))
        assert b"ef_error_percent" in sent and b"patient0" not in sent and str(tmp_path).encode() not in sent
    told = decide(hub, 1, None, tmp_path / "nothing")
    for site in SITES:
        shutil.copytree(large_homes.root / site / "cohort" / site, tmp_path / "all-cases" / site)
    here = decide(hub, 1, None, tmp_path / "all-cases")
    left, right = numbers(told.findings), numbers(here.findings)
    assert left.keys() == right.keys() and len(left) == 10
    for place, (patients, difference) in right.items():
        assert left[place][0] == patients >= 15
        assert left[place][1] == pytest.approx(difference, abs=1e-3)
    assert {d.site for d in told.evidence.data} == set(SITES) and not told.evidence.silent
    lonely = [f for f in told.findings if f.stratum == "HCM"]
    assert lonely and {(f.verdict, f.patients) for f in lonely} == {("not decidable", 0)}


@pytest.mark.slow
def test_a_release_at_the_hub_goes_by_the_hospitals_word_and_the_next_round_is_compared_with_it(
    large_homes: Homes,
) -> None:
    large_homes.play_round(1)
    large_homes.keep_round(1)
    against = heard(large_homes, SITES[0], 1).against
    assert against and against.release == AS_SHIPPED
    better_everywhere(large_homes, 1)
    for site in SITES:
        retell(large_homes, site, 1, -0.5, kind="structure", structure="RV", metric="dice")
    refused = release(large_homes, 1)
    assert isinstance(refused, ReleaseRefusedError) and refused.where.startswith("RV: Dice −0.4")
    better_everywhere(large_homes, 1)
    assert release(large_homes, 1) is None
    hub = large_homes.enter(HUB)
    card, _ = read_card(hub.versions, "v1.0.0")
    limits = " ".join(card.limits)
    assert "Not judged" in limits and "group HCM, RV" in limits and "group NOR" not in limits
    large_homes.play_round(2)
    large_homes.keep_round(2)
    against = heard(large_homes, SITES[0], 2).against
    fact = find_record(large_homes.enter(HUB).store, released_key(), Released)
    assert against and fact and (against.release, against.model_sha256) == ("v1.0.0", fact.model_sha256)
    ws = large_homes.enter(SITES[0])
    stale = heard(large_homes, SITES[0], 1).against
    said = get_record(ws.store, evaluation_key(SITES[0], 2), Evaluation)
    put_record(ws.store, evaluation_key(SITES[0], 2), said.model_copy(update={"against": stale}))
    better_everywhere(large_homes, 2)
    assert release(large_homes, 2) is None
    card, _ = read_card(large_homes.enter(HUB).versions, "v1.1.0")
    assert [(s.site, s.reason) for s in card.silent] == [(SITES[0], f"it has compared with {AS_SHIPPED}")]
    assert any(SITES[0] in limit for limit in card.limits)


@pytest.mark.slow
def test_hospitals_of_few_patients_tell_nothing_and_the_hub_does_not_guess(homes: Homes) -> None:
    homes.play_round(1)
    homes.keep_round(1)
    assert {heard(homes, site, 1).against for site in SITES} == {None}
    refused = release(homes, 1)
    assert isinstance(refused, RoundError) and "too few patients to tell of them" in refused.where


@pytest.mark.slow
def test_a_hospital_that_tells_of_more_patients_than_it_has_is_not_heard(
    large_homes: Homes, tmp_path: Path
) -> None:
    large_homes.play_round(1)
    large_homes.keep_round(1)
    ws = large_homes.enter(SITES[0])
    said = get_record(ws.store, evaluation_key(SITES[0], 1), Evaluation)
    raw = json.loads(said.model_dump_json())
    for cell in raw["against"]["cells"]:
        cell["patients"] = 1000
    put_record(ws.store, evaluation_key(SITES[0], 1), Evaluation.model_validate_json(json.dumps(raw)))
    found = decide(large_homes.enter(HUB), 1, None, tmp_path / "nothing")
    assert [silent.site for silent in found.evidence.silent] == [SITES[0]]
    assert "more validation patients" in found.evidence.silent[0].reason
