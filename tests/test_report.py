"""The report says what the records say: numbers by hand, honest words, no pixel and no script too many."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_files import (
    ABSENT,
    ADAPTER_BYTES,
    BASE,
    FULL_BYTES,
    SITES,
    SOMEBODY,
    STEP_BYTES,
    all_cases,
    baseline,
    chain,
    close,
    put,
    write_run,
)
from rich.console import Console

from model.errors import DataError, PackageError
from tasks.evaluate import Segmentation
from tasks.findings import bytes_sentence, result_sentences, signed, size
from tasks.history import RoundHistory, read_history, round_status, traffic, validation_dice
from tasks.overlays import heart_slices, render_overlays
from tasks.records import model_sha256
from tasks.report import COLUMNS, render_report, result_table, round_markdown, seen_words
from tasks.seal import NOTHING_SEEN, seal
from tasks.summary import (
    download_bytes,
    gain_table,
    metrics,
    model_table,
    paired_interval,
    read_cases,
    site_matrix,
)

PAIR = (("global", 0.1), ("zero-shot", 0.0))
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def history(run: Path) -> list[RoundHistory]:
    return read_history(run / "federation" / "rounds")


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return render_report(run, run / "report.html", images=False).read_text()


def table(*lines: tuple[str, str, str, str, float]) -> pd.DataFrame:
    """Cases of one structure and phase: model, owner, site, patient, Dice."""
    cases = pd.DataFrame(lines, columns=["model", "owner", "site", "patient", "dice"])
    return cases.assign(phase="ED", structure="LV", hd95_mm=10 * (1 - cases["dice"]))


def by_hand() -> pd.DataFrame:
    """Site a has two patients, site b one; each owns a local model."""
    return table(
        ("local", "a", "a", "p1", 0.9),
        ("local", "a", "a", "p2", 0.7),
        ("local", "a", "b", "p1", 0.4),
        ("local", "b", "a", "p1", 0.5),
        ("local", "b", "a", "p2", 0.3),
        ("local", "b", "b", "p1", 0.6),
        ("global", "", "a", "p1", 0.8),
        ("global", "", "a", "p2", 0.6),
        ("global", "", "b", "p1", 0.9),
        ("zero-shot", "", "a", "p1", 0.6),
        ("zero-shot", "", "a", "p2", 0.6),
        ("zero-shot", "", "b", "p1", 0.6),
    )


def test_site_matrix_holds_means_by_owner_and_site() -> None:
    matrix = site_matrix(by_hand(), "local")
    assert matrix.loc["a"].to_dict() == pytest.approx({"a": 0.8, "b": 0.4})
    assert matrix.loc["b"].to_dict() == pytest.approx({"a": 0.4, "b": 0.6})


def test_in_client_is_the_diagonal_and_cross_client_the_rest() -> None:
    row = model_table(by_hand()).loc["local"]
    assert row["in_client"] == pytest.approx((0.8 + 0.6) / 2)
    assert row["cross_client"] == pytest.approx((0.4 + 0.4) / 2)


def test_sites_count_alike_however_many_patients_they_have() -> None:
    row = model_table(by_hand()).loc["global"]
    assert row["dice"] == pytest.approx((0.7 + 0.9) / 2)
    assert row["in_client"] == row["cross_client"] == row["dice"]
    assert row["hd95_mm"] == pytest.approx((3.0 + 1.0) / 2)


def test_gain_table_compares_patient_by_patient() -> None:
    gains = gain_table(by_hand())
    assert gains["gain"].to_dict() == pytest.approx({"a": 0.1, "b": 0.3})
    assert gains["improved"].to_dict() == {"a": 1, "b": 1}
    assert gains["patients"].to_dict() == {"a": 2, "b": 1}


def test_interval_of_a_constant_difference_has_no_width() -> None:
    shifted = [(m, "", s, f"p{k}", 0.5 + 0.02 * k + lift) for s in "ab" for k in range(4) for m, lift in PAIR]
    found = paired_interval(table(*shifted), "global", "zero-shot", np.random.default_rng(0))
    assert (found.low, found.difference, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert (found.patients, found.left_out, found.verdict) == (8, 0, "better")


def test_interval_of_two_patients_spans_what_drawing_them_can_give() -> None:
    lines = [("global", "", "a", "p1", 0.8), ("global", "", "a", "p2", 0.5)]
    lines += [("fedavg", "", "a", "p1", 0.6), ("fedavg", "", "a", "p2", 0.7)]
    found = paired_interval(table(*lines), "global", "fedavg", np.random.default_rng(0))
    assert (found.low, found.high) == pytest.approx(
        (-0.2, 0.2)
    )  # a quarter of the draws takes one of them twice
    assert found.difference == pytest.approx(0.0)
    assert found.verdict == "unclear"


def test_interval_weights_sites_alike() -> None:
    found = paired_interval(by_hand(), "global", "zero-shot", np.random.default_rng(0))
    assert found.difference == pytest.approx((0.1 + 0.3) / 2)


def test_interval_in_client_leaves_other_owners_out() -> None:
    found = paired_interval(by_hand(), "global", "local", np.random.default_rng(0), "in")
    assert found.difference == pytest.approx((-0.1 + 0.3) / 2)
    found = paired_interval(by_hand(), "global", "local", np.random.default_rng(0), "cross")
    assert found.difference == pytest.approx((0.3 + 0.5) / 2)


def test_undefined_dice_is_counted_and_left_out_of_the_mean() -> None:
    cases = by_hand()
    cases.loc[6, ["dice", "hd95_mm"]] = np.nan  # global, a, p1
    row = model_table(cases).loc["global"]
    assert (row["undefined_dice"], row["undefined_hd95"], row["cases"]) == (1, 1, 3)
    assert row["dice"] == pytest.approx((0.6 + 0.9) / 2)
    assert paired_interval(cases, "global", "zero-shot", np.random.default_rng(0)).left_out == 1


def test_metrics_are_json_with_undefined_as_null(history: list[RoundHistory]) -> None:
    cases = by_hand()
    cases.loc[cases["model"] == "global", "hd95_mm"] = np.nan
    numbers = metrics(cases, history)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["global_hd95_mm"] is None
    assert numbers["global_undefined_hd95"] == 3
    assert numbers["bytes_ratio"] == FULL_BYTES / ADAPTER_BYTES
    assert (numbers["rounds"], numbers["rounds_not_complete"]) == (3, 1)


def test_metrics_without_rounds_are_undefined_not_absent() -> None:
    numbers = metrics(None, [])
    assert numbers["bytes_ratio"] is None
    assert numbers["rounds"] == 0


def test_cases_of_shared_models_have_an_empty_owner(run: Path) -> None:
    cases = read_cases(run / "evaluation" / "cases.csv")
    assert cases is not None
    assert set(cases.loc[cases["model"] == "global", "owner"]) == {""}


def test_a_case_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("model,site\nglobal,a\n")
    with pytest.raises(DataError, match="owner, patient"):
        read_cases(path)


def test_history_holds_what_was_published_and_nothing_for_the_absent(history: list[RoundHistory]) -> None:
    assert [entry.number for entry in history] == [1, 2, 3]
    assert set(history[0].updates) == set(SITES)
    assert ABSENT not in history[1].updates
    assert history[2].merge is not None


def test_a_malformed_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0001" / "close.json"
    path.parent.mkdir()
    path.write_bytes(seal(SOMEBODY, "global/rounds/0001/close.json", NOTHING_SEEN, b'{"round": 1}'))
    with pytest.raises(PackageError, match="outcome") as caught:
        read_history(tmp_path)
    assert caught.value.where == str(path)


def test_a_later_baseline_replaces_the_judged_gain(history: list[RoundHistory]) -> None:
    curve = validation_dice(history)["st-anna"]
    assert curve == pytest.approx({n: baseline(n + 1, "st-anna") for n in range(4)})


def test_traffic_adds_candidates_and_the_merged_step(history: list[RoundHistory]) -> None:
    moved = traffic(history)[1]["st-anna"]
    assert (moved.sent, moved.candidates, moved.steps) == (ADAPTER_BYTES, 3 * ADAPTER_BYTES, STEP_BYTES)
    assert moved.received == 3 * ADAPTER_BYTES + STEP_BYTES


def test_a_site_that_slept_fetches_the_step_it_missed_when_it_is_back(history: list[RoundHistory]) -> None:
    by_round = {number: sites.get(ABSENT) for number, sites in traffic(history).items()}
    assert by_round[2] is None
    assert by_round[3] is not None and by_round[3].steps == 2 * STEP_BYTES
    assert traffic(history)[3]["st-anna"].steps == STEP_BYTES


def test_the_page_shows_upload_and_download_per_site_and_round_and_their_ratio(page: str) -> None:
    assert "100 kB / 550 kB" in page  # 3 others' updates and a step
    assert "100 kB / 800 kB" in page  # and the step of the round it slept through
    assert "<small>1/65</small>" in page  # 6.5 MB / 100 kB


def test_the_download_of_a_run_is_the_mean_over_sites_and_rounds(history: list[RoundHistory]) -> None:
    whole, degraded, back = (n * ADAPTER_BYTES + STEP_BYTES for n in (3, 2, 3))
    mean = (4 * whole + 3 * degraded + 4 * back + STEP_BYTES) / 11
    assert download_bytes(history) == pytest.approx(mean)
    numbers = metrics(None, history)
    assert numbers["bytes_down_ratio"] == pytest.approx(FULL_BYTES / mean)
    assert f"it downloads {size(mean)}" in bytes_sentence(history)


def test_without_any_traffic_nothing_is_said_of_bytes() -> None:
    assert (download_bytes([]), traffic([])) == (None, {})
    assert bytes_sentence([]) == "No site has uploaded anything yet."


def test_only_a_full_round_reads_as_complete(history: list[RoundHistory]) -> None:
    assert [round_status(entry).label for entry in history] == ["complete", "degraded", "complete"]
    assert ABSENT in round_status(history[1]).detail


@pytest.mark.parametrize(
    ("outcome", "fraction", "label"),
    [
        ("stepped_back", 0.5, "stepped back, degraded"),
        ("rejected", 0.0, "rejected"),
        ("failed", 0.0, "failed"),
    ],
)
def test_a_troubled_round_names_outcome_and_absentees(outcome: str, fraction: float, label: str) -> None:
    record = close(1, ["st-anna"], ABSENT).model_copy(update={"outcome": outcome, "fraction": fraction})
    status = round_status(RoundHistory(number=1, close=record))
    assert (status.label, status.good) == (label, False)
    assert ABSENT in status.detail


def test_a_round_under_way_says_how_far_it_is(history: list[RoundHistory]) -> None:
    entry = RoundHistory(number=1, plan=history[0].plan, updates=dict(list(history[0].updates.items())[:1]))
    assert round_status(entry).detail == "training: 1 of 4 updates"


def test_page_has_no_script_and_no_remote_asset(page: str) -> None:
    assert "<script" not in page
    assert "http" not in page
    assert all(uri.startswith("data:image/png;base64,") for uri in re.findall(r'src="([^"]*)', page))


def test_same_run_gives_the_same_page(run: Path, page: str, tmp_path: Path) -> None:
    assert render_report(run, tmp_path / "again.html", images=False).read_text() == page


def test_page_holds_reasons_hashes_and_absentees(page: str, history: list[RoundHistory]) -> None:
    assert history[2].merge is not None
    assert history[2].merge.receipts[0].reason in page
    assert model_sha256(BASE, chain(3)) in page
    assert "the base and the step of round 1" in " ".join(page.split())
    assert "△ degraded" in page
    assert "quarantined: lakeside" in page


def test_page_and_artifact_show_intervals_and_the_structure_that_decided(
    page: str, history: list[RoundHistory]
) -> None:
    merge = history[2].merge
    assert merge is not None
    hillcrest = next(r for r in merge.receipts if r.site == "hillcrest")
    mean, worst = (hillcrest.seen["st-anna"][aspect] for aspect in ("mean", "LV"))
    assert hillcrest.aspect == "LV"
    assert f"<small>[{signed(mean.low)}, {signed(mean.high)}]</small>" in page
    assert f"LV {seen_words(worst)}" in page
    cell = f"{seen_words(mean)}; LV {seen_words(worst)}".replace("[", "\\[")
    assert cell in round_markdown(history)


def test_many_raters_are_listed_instead_of_set_side_by_side(tmp_path: Path) -> None:
    sites = {f"site-{k}": 80 + k for k in range(COLUMNS + 2)}
    root = write_run(tmp_path / "run", rounds=1, sites=sites, evaluated=False)
    page = render_report(root, tmp_path / "report.html", images=False).read_text()
    assert "Gain by rater" in page and "seen by<br>" not in page
    assert "| update of | seen by |" in round_markdown(read_history(root / "federation" / "rounds"))


def test_overlays_are_shown_only_where_images_may_be(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", rounds=0, evaluated=False)
    picture = root / "evaluation" / "overlays" / "st-anna" / "best.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(PNG + b"a patient")
    inside = render_report(root, tmp_path / "in.html", images=True).read_text()
    outside = render_report(root, tmp_path / "out.html", images=False).read_text()
    payload = "iVBORw0KGgphIHBhdGllbnQ="  # the picture in base64
    assert payload in inside
    assert "must stay where it was made" in inside
    assert payload not in outside
    assert "images of site data" not in outside


def test_names_are_escaped_and_a_missing_evaluation_is_said(tmp_path: Path) -> None:
    root, evil = tmp_path / "<b>run", "<img src=x onerror=alert(1)>"
    write_run(root, rounds=1, evaluated=False)
    put(root / "federation" / "rounds" / "0001" / "close.json", close(1, ["st-anna"], evil))
    page = render_report(root, tmp_path / "report.html", images=False).read_text()
    assert "<b>run" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "There is no test evaluation yet: how good the models are" in page
    assert "validation slices the global model stands at" in page
    text = round_markdown(read_history(root / "federation" / "rounds"))
    assert "<img src=x" not in text


def test_page_of_an_empty_run_is_whole(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    page = render_report(root, tmp_path / "report.html", images=True).read_text()
    assert "No round has been opened yet" in page
    assert page.rstrip().endswith("</html>")


def test_a_federation_that_does_not_help_is_called_that(history: list[RoundHistory]) -> None:
    cases = all_cases()
    worse = cases["model"].isin(["global", "personal"])
    cases.loc[worse, "dice"] -= 0.3
    base, alone, fedavg = result_sentences(cases, history)
    assert "worse than the base" in base
    assert "worse than training alone" in alone
    assert "worse than full-weight FedAvg" in fedavg


def test_an_unclear_difference_is_called_unclear(history: list[RoundHistory]) -> None:
    assert "not distinguishable from full-weight FedAvg" in result_sentences(all_cases(), history)[2]


def test_sentences_name_what_was_not_evaluated(history: list[RoundHistory]) -> None:
    cases = all_cases()
    base, alone, fedavg = result_sentences(cases[cases["model"] == "global"], history)
    assert "the base as shipped was not evaluated" in base
    assert "not known" in alone
    assert "FedAvg was not evaluated" in fedavg


def test_markdown_has_tables_and_a_small_picture(history: list[RoundHistory]) -> None:
    text = round_markdown(history)
    assert "| 2 | degraded | without lakeside" in text
    assert "data:image/png;base64," in text
    assert len(text) < 150_000


def test_result_table_lists_every_model(history: list[RoundHistory]) -> None:
    out = io.StringIO()
    Console(file=out, width=120).print(result_table(all_cases(), history))
    assert "Trained alone at the site" in out.getvalue()
    out = io.StringIO()
    Console(file=out, width=120).print(result_table(None, history))
    assert "No test evaluation" in out.getvalue()


def test_sizes_are_rounded_for_people() -> None:
    assert [size(n) for n in (900, 12_345, 123_456, 6_543_210)] == ["0.9 kB", "12.3 kB", "123 kB", "6.54 MB"]


def segmentation(empty: bool = False) -> Segmentation:
    """A heart that narrows towards slice 0, in anisotropic voxels."""
    z, y, x = np.mgrid[:8, :40, :50]
    truth = np.where(np.hypot((y - 20) * 1.5, (x - 25) * 1.2) < 6 + 1.5 * z, 3, 0).astype(np.uint8)
    truth[0] = 0
    if empty:
        truth[:] = 0
    return Segmentation(truth * np.float32(100) + y, truth, np.roll(truth, 1, 1), (8.0, 1.5, 1.2))


def test_base_is_the_wide_end_of_the_heart() -> None:
    assert heart_slices(segmentation()) == {"base": 6, "mid": 4, "apex": 2}
    assert set(heart_slices(segmentation(empty=True))) == {"base", "mid", "apex"}


def test_overlays_pick_best_median_and_worst(tmp_path: Path) -> None:
    cases = table(*[("global", "", "a", f"p{k}", dice) for k, dice in enumerate((0.5, 0.9, 0.7, np.nan))])
    asked: list[str] = []

    def segment(row: pd.Series) -> Segmentation:
        asked.append(str(row["patient"]))
        return segmentation()

    files = render_overlays(cases, segment, tmp_path)
    assert asked == ["p1", "p2", "p0"]
    assert [path.name for path in files] == ["best.png", "median.png", "worst.png"]
    assert all(path.read_bytes().startswith(PNG) for path in files)


def test_no_defined_case_gives_no_overlay(tmp_path: Path) -> None:
    cases = table(("global", "", "a", "p1", np.nan))
    assert render_overlays(cases, lambda row: segmentation(), tmp_path) == ()
