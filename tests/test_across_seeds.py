"""Tables over seeds compare only what differs in the seed; pages between rounds hold no test result."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from federation_files import tiny_params
from report_files import write_run

from flows.servers import _never_by_proxy
from model.errors import ConfigError
from tasks.across_seeds import seed_tables
from tasks.report import render_report


def run_of(folder: Path, *overrides: str) -> Path:
    write_run(folder, rounds=1)
    (folder / "params.json").write_text(tiny_params(*overrides).model_dump_json())
    return folder


def test_two_runs_of_one_seed_are_refused(tmp_path: Path) -> None:
    twins = [run_of(tmp_path / name, "seed=1") for name in ("a", "b")]
    with pytest.raises(ConfigError, match="do not differ in their seed alone"):
        seed_tables(twins)


def test_runs_that_differ_in_more_than_the_seed_are_refused(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "a", "seed=1"), run_of(tmp_path / "b", "seed=2", "merge.clip=3.0")]
    with pytest.raises(ConfigError, match="do not differ in their seed alone"):
        seed_tables(runs)


def test_runs_that_differ_in_their_seed_are_tabulated_with_undefined_counts(tmp_path: Path) -> None:
    said = seed_tables([run_of(tmp_path / "a", "seed=1"), run_of(tmp_path / "b", "seed=2")])
    assert "seeds 1, 2" in said
    assert "undefined Dice / HD95" in said


def test_a_page_made_between_rounds_holds_no_test_result(tmp_path: Path) -> None:
    root = run_of(tmp_path / "a", "seed=1")
    page = render_report(root, tmp_path / "page.html", images=False, tested=False).read_text()
    assert "There is no test evaluation yet" in page
    assert "mean test Dice of" not in page


def test_loopback_is_never_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    monkeypatch.setenv("no_proxy", "")
    _never_by_proxy()
    assert os.environ["NO_PROXY"] == "intranet.example,127.0.0.1,localhost"
    assert os.environ["no_proxy"] == "127.0.0.1,localhost"
