"""The log only grows: whatever is killed at the hub, and whatever anybody does to it, hub and hospitals notice."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from audit_files import chained, hub_public, logged_rounds, put_log
from federation_files import delete, new_run, use_store

from infra.s3_server import S3Server
from model.errors import AuditError
from tasks.audit.entry import Fact, line_of
from tasks.audit.federation_facts import federation_facts
from tasks.audit.log import COPY_FILE, load_log
from tasks.audit.record import append_missing
from tasks.audit.show import read_entries
from tasks.audit.source import Bucket
from tasks.audit.verify import verify_log
from tasks.audit.watch import SEEN_FILE, watch
from tasks.ledger import audit_head_key, audit_segment_key, put_record, release_key
from tasks.release.records import Released
from tasks.workspace import Workspace

Tell = Fact("reported", 9)


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Workspace:
    """A round of three hospitals with their log; left as they are."""
    env = s3_server.environment(bucket="audit-grows")
    with pytest.MonkeyPatch.context() as patch:
        use_store(patch, env)
        made = new_run(tmp_path_factory, tmp_path_factory.mktemp("audit") / "run")
        made.store.ensure_bucket()
        return logged_rounds(made, 1)


@pytest.fixture
def short(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, ws: Workspace, s3_server: S3Server
) -> Workspace:
    """The same log in a bucket of its own, for tests that write."""
    env = s3_server.environment(bucket=f"audit-{tmp_path.name[-20:].replace('_', '-').lower()}")
    with pytest.MonkeyPatch.context() as patch:
        use_store(patch, env)
        own = Workspace(tmp_path / "run", ws.params)
        own.store.ensure_bucket()
    shutil.copytree(ws.hub_home, own.hub_home)
    shutil.copytree(ws.root / "keys", own.root / "keys")
    for info in ws.store.list("global/audit/"):
        own.store.put(info.key, ws.store.get(info.key))
    return own


def killed_before_the_checkpoint(ws: Workspace) -> int:
    log = load_log(ws.store, ws.hub_home)
    line = line_of(log.count, Fact("reported", 8), log.entries[-1].time, log.sha256)
    ws.store.put(audit_segment_key(log.count), line + b"\n")
    return log.count


def test_a_segment_without_a_checkpoint_is_kept_and_signed_by_the_next_call(short: Workspace) -> None:
    n = killed_before_the_checkpoint(short)
    assert [(f.n, f.wrong) for f in verify_log(Bucket(short.store)).faults] == [(n, "added")]
    segment = short.store.get(audit_segment_key(n))
    append_missing(short, 9)
    assert short.store.get(audit_segment_key(n)) == segment
    assert verify_log(Bucket(short.store), hub_public(short)).faults == ()
    append_missing(short, 9, [Tell])
    assert load_log(short.store, short.hub_home).entries[-1].n == n + 1


def test_what_the_store_lost_of_the_log_comes_back_from_the_hubs_own_copy(short: Workspace) -> None:
    before = read_entries(Bucket(short.store))
    keys = [info.key for info in short.store.list("global/audit/")]
    delete(short.store, *keys[-3:])
    append_missing(short, 9)
    assert read_entries(Bucket(short.store)) == before
    assert verify_log(Bucket(short.store)).faults == ()


def test_a_hub_does_not_go_on_with_a_log_that_is_not_its_own(short: Workspace) -> None:
    log = load_log(short.store, short.hub_home)
    (short.hub_home / COPY_FILE).write_bytes(b"\n".join([*log.lines[:-1], log.lines[-1] + b" "]) + b"\n")
    with pytest.raises(AuditError, match=f"entry {log.count - 1} is not the one"):
        append_missing(short, 9)


def test_a_hospital_follows_the_log_and_reads_only_what_is_new(short: Workspace, tmp_path: Path) -> None:
    home, log = tmp_path / "lakeside", load_log(short.store, short.hub_home)
    assert (seen := watch(short.store, home)) and (seen.count, seen.sha256) == (log.count, log.sha256)
    for number in (8, 9):
        append_missing(short, number, [Fact("reported", number)])
    before = short.store.bytes_received
    assert (seen := watch(short.store, home)) and seen.count == log.count + 2
    assert short.store.bytes_received - before < 2000


def test_a_hospital_waits_for_a_log(short: Workspace, tmp_path: Path) -> None:
    delete(short.store, audit_head_key())
    assert watch(short.store, tmp_path / "lakeside") is None


@pytest.mark.parametrize("grown", [0, 1, 3])
def test_a_hospital_refuses_a_history_that_was_rewritten(
    short: Workspace, tmp_path: Path, grown: int
) -> None:
    home, log = tmp_path / "lakeside", load_log(short.store, short.hub_home)
    watch(short.store, home)
    entries = [json.loads(line) for line in log.lines]
    more = [{**entries[-1], "round": 7}] * grown
    put_log(short, chained([*entries[:7], {**entries[7], "site": "nobody"}, *entries[8:], *more]), log.count)
    with pytest.raises(AuditError, match=f"entry {log.count - 1} (was changed|is not the one that was seen)"):
        watch(short.store, home)


def test_a_hospital_refuses_a_log_that_was_cut_short(short: Workspace, tmp_path: Path) -> None:
    home, log = tmp_path / "lakeside", load_log(short.store, short.hub_home)
    watch(short.store, home)
    put_log(short, log.lines[:-4])
    with pytest.raises(AuditError, match=f"entry {log.count - 4} is missing"):
        watch(short.store, home)
    delete(short.store, audit_head_key())
    with pytest.raises(AuditError, match=f"entry {log.count - 1} is missing: there is no log"):
        watch(short.store, home)


def test_a_hospital_goes_on_when_the_hub_has_given_back_what_the_store_lost(
    short: Workspace, tmp_path: Path
) -> None:
    home = tmp_path / "lakeside"
    watch(short.store, home)
    keys = [info.key for info in short.store.list("global/audit/")]
    delete(short.store, *keys[-3:])
    append_missing(short, 9, [Tell])
    assert (seen := watch(short.store, home)) and seen.count == load_log(short.store, short.hub_home).count


def test_a_hospital_whose_note_is_damaged_says_so(short: Workspace, tmp_path: Path) -> None:
    (tmp_path / SEEN_FILE).write_bytes(b"{")
    with pytest.raises(AuditError, match="no usable note"):
        watch(short.store, tmp_path)


def test_a_release_is_told_once_and_without_the_name_of_who_approved_it(short: Workspace) -> None:
    fact = Released(
        number=1,
        action="release",
        channel="clinical",
        release="v1.0.0",
        round=1,
        model_sha256="0" * 64,
        steps=(),
        before=None,
        compared_with="base as shipped",
        undecided=0,
        approved_by="somebody",
        card_sha256="0" * 64,
        at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    put_record(short.store, release_key(1), fact)
    log = load_log(short.store, short.hub_home)
    (told,) = federation_facts(short.store, log)
    assert (told.kind, told.facts["release"], told.object) == ("released", "v1.0.0", release_key(1))
    assert "somebody" not in str(told)
    append_missing(short, 9, [told])
    assert not list(federation_facts(short.store, load_log(short.store, short.hub_home)))
