"""A hospital is told everything that has left it, with the sizes that lay in the store, encrypted or not."""

from __future__ import annotations

import pytest
from audit_files import logged_round
from federation_files import SITES, NewRun
from rich.console import Console
from typer.testing import CliRunner

from flows import audit_cli
from flows.cli import app
from tasks.audit.show import departures, read_entries, total_bytes
from tasks.audit.source import Bucket
from tasks.ledger import adapter_key, get_record, site_prefix, update_key
from tasks.records import Update


@pytest.mark.parametrize("encrypt", ["true", "false"])
def test_everything_that_left_a_hospital_is_told_with_its_size(
    start: NewRun, encrypt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = start(f"privacy.encrypt={encrypt}")
    logged_round(ws, 1)
    entries = read_entries(Bucket(ws.store))
    for site in SITES:
        left = departures(entries, site)
        there = {
            info.key: (info.size, ws.store.sha256_of(info.key)) for info in ws.store.list(site_prefix(site))
        }
        assert {entry.object: (entry.n_bytes, entry.sha256) for entry in left} == there
        package = get_record(ws.store, update_key(site, 1), Update).adapter_bytes
        assert (there[adapter_key(site, 1)][0] > package) == (encrypt == "true")
        assert total_bytes(left) == sum(size for size, _ in there.values())
    monkeypatch.setattr(audit_cli, "console", Console(width=200))
    said = CliRunner().invoke(app, ["audit", "show", f"s3://{ws.store.bucket}", "--site", SITES[0]])
    expected = departures(entries, SITES[0])
    assert said.exit_code == 0, said.output
    assert f"{len(expected)} objects, {total_bytes(expected)} bytes have left {SITES[0]}" in said.output
    assert all(str(entry.object) in said.output for entry in expected)
