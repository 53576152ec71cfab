"""`cardiofed round retry` finds what failed, also in a round that could not be opened, and begins none by itself."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from doctor_files import Federation, federation
from typer.testing import CliRunner

from flows import retries
from flows.cli import app
from model.errors import RoundError
from tasks.close import close_failed
from tasks.ledger import close_key, get_record, put_record
from tasks.next_round import end_round
from tasks.open import open_round
from tasks.records import Close

__all__ = ["federation"]


def retry(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, failed: Mapping[int, tuple[str, ...]]
) -> str:
    """What the command says where Prefect knows these failed runs, by round."""
    monkeypatch.setattr(retries, "retry_round", lambda number: failed.get(number, ()))
    monkeypatch.setattr(retries, "start_round", lambda number: ("id", f"run of {number}"))
    done = CliRunner().invoke(app, ["round", "retry", "--home", str(federation.hub)])
    assert done.exit_code == 0, done.output
    return done.output


def test_without_any_round_nothing_is_begun(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nothing to retry, and round 1 is not open" in retry(federation, monkeypatch, {})


def test_an_open_round_that_prefect_has_lost_is_continued(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_round(federation.gather(), 1)
    assert "started 'run of 1'" in retry(federation, monkeypatch, {})


def test_a_hub_that_could_not_open_the_next_round_and_a_site_that_failed_in_the_last_are_retried(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = federation.gather()
    open_round(ws, 1)
    close_failed(ws, 1, RoundError("nobody came"))
    close = get_record(ws.store, close_key(1), Close)
    put_record(ws.store, close_key(1), close.model_copy(update={"outcome": "rejected"}))
    end_round(ws, 1)
    failed = {1: ("round 1 at st-anna",), 2: ("federated round 2",)}
    assert "retried: federated round 2, round 1 at st-anna" in retry(federation, monkeypatch, failed)
    assert "round 2 is not open" in retry(federation, monkeypatch, {})
