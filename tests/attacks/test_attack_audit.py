"""The hub lies, or somebody takes an entry out of its log: whoever verifies a copy of the ledger sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from audit_files import (
    chained,
    hub_public,
    logged_rounds,
    read_log,
    read_record,
    sign_again,
    write_log,
    write_record,
)
from federation_files import new_run, use_store

from infra.s3_server import S3Server
from tasks.audit import verify
from tasks.audit.chain import Fault
from tasks.audit.fetch import fetch_ledger
from tasks.audit.source import Folder
from tasks.files import sha256_bytes
from tasks.homes import HUB
from tasks.ledger import merge_key
from tasks.workspace import Workspace


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Workspace:
    """One round of three hospitals with its log."""
    with pytest.MonkeyPatch.context() as patch:
        use_store(patch, s3_server.environment(bucket="attack-audit"))
        made = new_run(tmp_path_factory, tmp_path_factory.mktemp("attack-audit") / "run")
        made.store.ensure_bucket()
        return logged_rounds(made, rounds=1)


@pytest.fixture
def copy(ws: Workspace, tmp_path: Path) -> Path:
    """What a hospital or an auditor has of the ledger."""
    fetch_ledger(ws.store, HUB, tmp_path / "ledger")
    return tmp_path / "ledger"


def faults(copy: Path, ws: Workspace) -> tuple[Fault, ...]:
    return verify.verify_log(Folder(copy), hub_public(ws)).faults


def lie(copy: Path, ws: Workspace) -> None:
    """The hub halves a hospital's weight, in the record, in the log and under its own signature."""
    merge = read_record(copy, merge_key(1))
    receipt = merge["receipts"][1]
    receipt.update(rated_weight=0.25, used_weight=0.25)
    data = write_record(copy, merge_key(1), ws, merge)
    entries = [json.loads(line) for line in read_log(copy)]
    for entry in entries:
        if entry["kind"] == "merged":
            entry["sha256"] = sha256_bytes(data)
        if entry["kind"] == "weighted" and entry["site"] == receipt["site"]:
            entry["facts"].update(rated_weight=0.25, used_weight=0.25)
    write_log(copy, chained(entries))
    sign_again(copy, ws)


def test_hub_lying_about_a_weight(copy: Path, ws: Workspace, off: pytest.MonkeyPatch) -> None:
    assert faults(copy, ws) == ()
    lie(copy, ws)
    off.setattr(
        verify, "witnesses", lambda *_: ()
    )  # a hub that lies at once is contradicted by no site's memory
    with pytest.MonkeyPatch.context() as without:
        without.setattr(verify, "round_faults", lambda *_: [])
        assert faults(copy, ws) == ()
    assert any("used_weight" in fault.why and "the ratings give" in fault.why for fault in faults(copy, ws))


def test_deleted_audit_entry(copy: Path, ws: Workspace, off: pytest.MonkeyPatch) -> None:
    lines = read_log(copy)
    write_log(copy, [*lines[:14], *lines[15:]])
    off.setattr(verify, "find_faults", lambda *_: [])
    assert faults(copy, ws) == ()
    off.undo()
    assert str(faults(copy, ws)[0]).startswith("entry 14 is missing")
