"""The audit log tells every fact once, and whatever is done to it afterwards is found and named."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
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
from federation_files import SITES, new_run, objects, use_store
from typer.testing import CliRunner

from flows.cli import app
from infra.s3_server import S3Server
from model.errors import AuditError
from tasks.audit.fetch import fetch_ledger
from tasks.audit.log import COPY_FILE, load_log
from tasks.audit.record import append_missing
from tasks.audit.show import departures, read_entries, total_bytes
from tasks.audit.source import Bucket, Folder, open_source
from tasks.audit.verify import Findings, verify_log
from tasks.files import sha256_bytes
from tasks.homes import HUB
from tasks.ledger import audit_head_key, candidates_key, merge_key
from tasks.trust import have_all_identities
from tasks.workspace import Workspace


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Workspace:
    """Two rounds of three hospitals with their log; left as they are."""
    env = s3_server.environment(bucket="audit")
    with pytest.MonkeyPatch.context() as patch:
        use_store(patch, env)
        made = new_run(tmp_path_factory, tmp_path_factory.mktemp("audit") / "run")
        made.store.ensure_bucket()
        return logged_rounds(made)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, ws: Workspace) -> Path:
    """A copy of the ledger."""
    out = tmp_path_factory.mktemp("copy") / "ledger"
    fetch_ledger(ws.store, HUB, out)
    return out


@pytest.fixture
def copy(tmp_path: Path, whole: Path) -> Path:
    """A copy of one's own, to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "ledger"))


def verified(copy: Path, ws: Workspace) -> Findings:
    return verify_log(Folder(copy), hub_public(ws))


def first(copy: Path, ws: Workspace) -> str:
    """The first entry that is wrong, and how."""
    fault = verified(copy, ws).faults[0]
    return f"{fault.n} {fault.wrong}"


def test_a_whole_log_verifies_in_a_folder_and_in_the_store(copy: Path, ws: Workspace) -> None:
    for source in (Folder(copy), Bucket(ws.store)):
        found = verify_log(source, hub_public(ws))
        assert (found.faults, found.notes, found.rounds) == ((), (), 2)
        assert found.entries == len(read_log(copy))
        assert found.objects > 2 * (5 * len(SITES) + 4)
        assert found.positions > 2 * 4 * len(SITES)


def test_every_fact_of_two_rounds_is_told_once(whole: Path) -> None:
    told = Counter((e.kind, e.round) for e in read_entries(Folder(whole)))
    for number in (1, 2):
        once = ("opened", "drawn", "merged", "closed")
        each = ("admitted", "rated", "weighted", "judged", "unblinded", "evaluated")
        assert [told[kind, number] for kind in once] == [1] * len(once)
        assert [told[kind, number] for kind in each] == [len(SITES)] * len(each)
        assert told["uploaded", number] == 2 * len(SITES)  # passport and adapter
    assert (told["founded", None], told["joined", None], told["configured", 1]) == (1, len(SITES), 1)


def test_a_second_call_appends_nothing_and_a_lost_copy_is_made_again(ws: Workspace, tmp_path: Path) -> None:
    before = objects(ws.store)
    assert append_missing(ws, 2, thorough=True) == 0
    assert objects(ws.store) == before
    load_log(ws.store, tmp_path)
    assert (tmp_path / COPY_FILE).read_bytes() == (ws.hub_home / COPY_FILE).read_bytes()


def test_before_a_round_closes_the_log_tells_nothing_that_names_a_candidate(
    ws: Workspace, whole: Path
) -> None:
    candidates = read_record(whole, candidates_key(2))["candidates"]
    lines = read_log(whole)
    closed = next(n for n, line in enumerate(lines) if b'"kind":"closed"' in line and b'"round":2' in line)
    before = b"\n".join(lines[:closed])
    for candidate in candidates:
        assert candidate["id"].encode() not in before
        assert candidate["sha256"].encode() not in before
        assert any(candidate["id"].encode() in line for line in lines[closed:])


Spoil = Callable[[list[bytes]], list[bytes]]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda ls: [*ls[:7], *ls[8:]], "7 missing"),
        (lambda ls: ls[1:], "0 missing"),
        (lambda ls: ls[:-1], "last missing"),
        (lambda ls: [*ls[:7], ls[7].replace(b'"kind":', b'"kind": '), *ls[8:]], "7 changed"),
        (lambda ls: [*ls[:7], b"{}", *ls[8:]], "7 changed"),
        (lambda ls: [*ls[:7], ls[8], ls[7], *ls[9:]], "7 reordered"),
        (lambda ls: [ls[5], *ls[:5], *ls[6:]], "0 reordered"),
        (lambda ls: [*ls[:8], ls[7], *ls[8:]], "7 added"),
        (lambda ls: [*ls, ls[-1].replace(b'"n":', b'"n":1')], "beyond added"),
        (lambda ls: [*ls[:7], *ls[8:20], b"{}", *ls[21:]], "7 missing"),
    ],
)
def test_what_was_done_to_the_log_is_named(copy: Path, ws: Workspace, spoil: Spoil, named: str) -> None:
    lines = read_log(copy)
    write_log(copy, spoil(lines))
    beyond = int(b"1" + str(len(lines) - 1).encode())
    assert first(copy, ws) == named.replace("last", str(len(lines) - 1)).replace("beyond", str(beyond))


def test_an_entry_rewritten_with_all_after_it_is_not_covered_by_the_checkpoint(
    copy: Path, ws: Workspace
) -> None:
    entries = [json.loads(line) for line in read_log(copy)]
    write_log(copy, chained([*entries[:12], {**entries[12], "site": "nobody"}, *entries[13:]]))
    fault = verified(copy, ws).faults[0]
    assert (fault.wrong, 12 <= fault.n < len(entries)) == ("changed", True)


def test_a_log_cut_short_by_the_hub_itself_is_found_by_what_a_site_had_seen(
    copy: Path, ws: Workspace
) -> None:
    lines = read_log(copy)
    write_log(copy, lines[:20])
    sign_again(copy, ws)
    faults = verified(copy, ws).faults
    assert next(fault.n for fault in faults if fault.wrong == "missing") == 20
    assert any("which sealed sites/" in fault.why for fault in faults)


def test_a_history_rewritten_and_signed_by_the_hub_is_found_by_what_a_site_had_seen(
    copy: Path, ws: Workspace
) -> None:
    entries = [json.loads(line) for line in read_log(copy)]
    write_log(copy, chained([*entries[:12], {**entries[12], "site": "nobody"}, *entries[13:]]))
    sign_again(copy, ws)
    fault = verified(copy, ws).faults[0]
    assert (fault.wrong, 12 <= fault.n < 20) == ("changed", True)
    assert "which sealed sites/" in fault.why


@pytest.mark.parametrize("forge", [lambda data: b"{}", lambda data: data.replace(b" 1 ", b" 2 ", 1)])
def test_a_record_that_is_not_its_authors_word_is_named_by_its_entry(
    copy: Path, ws: Workspace, forge: Callable[[bytes], bytes]
) -> None:
    path = copy / "sites/lakeside/rounds/0002/ratings.json"
    path.write_bytes(forge(path.read_bytes()))
    entries = read_entries(Folder(copy))
    fault = verified(copy, ws).faults[0]
    assert (entries[fault.n].kind, entries[fault.n].site, fault.wrong) == (
        "rated",
        "lakeside",
        "contradicted",
    )


def test_what_a_site_writes_again_is_a_note_and_no_fault(copy: Path, ws: Workspace) -> None:
    key = "sites/lakeside/rounds/0002/evaluation.json"
    write_record(copy, key, ws, read_record(copy, key))
    found = verified(copy, ws)
    assert found.faults == ()
    assert any("was written again by its author" in note for note in found.notes)


def test_a_deleted_segment_and_a_deleted_checkpoint_are_named(copy: Path, ws: Workspace) -> None:
    segments = sorted((copy / "global/audit").glob("*.jsonl"))
    segments[1].unlink()
    assert first(copy, ws) == f"{int(segments[1].stem)} missing"
    (copy / audit_head_key()).unlink()
    assert any("no checkpoint" in fault.why for fault in verified(copy, ws).faults)


def test_a_checkpoint_of_another_hub_is_refused(copy: Path, ws: Workspace, tmp_path: Path) -> None:
    other = Workspace(tmp_path / "other", ws.params)
    have_all_identities(other.root, ())
    sign_again(copy, other)
    faults = verified(copy, ws).faults
    assert faults[0].wrong == "added"  # what nobody else has seen and signed
    assert any("no checkpoint of the hub covers it: it is sealed by" in fault.why for fault in faults)


@pytest.mark.parametrize("log_too", [False, True])
def test_a_hub_that_lies_about_a_weight_is_caught(copy: Path, ws: Workspace, log_too: bool) -> None:
    merge = read_record(copy, merge_key(1))
    liar = merge["receipts"][1]
    liar.update(rated_weight=0.25, used_weight=0.25)
    data = write_record(copy, merge_key(1), ws, merge)
    entries = [json.loads(line) for line in read_log(copy)]
    if log_too:  # the hub signs what it likes
        for entry in entries:
            if entry["round" if "round" in entry else "n"] == 1 and entry["kind"] in ("merged", "weighted"):
                if entry["kind"] == "merged":
                    entry["sha256"] = sha256_bytes(data)
                elif entry["site"] == liar["site"]:
                    entry["facts"].update(rated_weight=0.25, used_weight=0.25)
        write_log(copy, chained(entries))
        sign_again(copy, ws)
    told = {str(fault) for fault in verified(copy, ws).faults}
    assert any(f"used_weight of {liar['site']} in round 1 is 0.25, the ratings give" in said for said in told)


def test_raters_that_the_nonce_does_not_draw_are_caught(copy: Path, ws: Workspace) -> None:
    record = read_record(copy, candidates_key(2))
    one, *others = record["assigned"]
    record["assigned"][one] = others[:1]
    write_record(copy, candidates_key(2), ws, record)
    assert any("are not those that the nonce draws" in fault.why for fault in verified(copy, ws).faults)


def test_a_changed_object_of_the_ledger_is_named_by_its_entry(copy: Path, ws: Workspace) -> None:
    (copy / "sites/lakeside/rounds/0002/verdict.json").write_bytes(b"{}")
    fault = verified(copy, ws).faults[0]
    entry = read_entries(Folder(copy))[fault.n]
    assert (entry.kind, entry.round, entry.site) == ("judged", 2, "lakeside")


def test_what_left_a_hospital_adds_up_to_the_bytes_in_the_store(ws: Workspace, whole: Path) -> None:
    for site in SITES:
        lying = ws.store.list(f"sites/{site}/")
        left = departures(read_entries(Folder(whole)), site)
        assert sorted(str(e.object) for e in left) == [info.key for info in lying]
        assert total_bytes(left) == sum(info.size for info in lying)


def test_a_hospitals_own_copy_verifies_as_far_as_it_goes(ws: Workspace, tmp_path: Path) -> None:
    fetch_ledger(ws.store, "lakeside", tmp_path / "own")
    found = verified(tmp_path / "own", ws)
    assert (found.faults, found.rounds) == ((), 0)
    assert all("sites/hillcrest/" in note for note in found.notes)


def test_a_copy_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no audit log"):
        open_source(str(tmp_path))


def test_the_command_shows_a_hospitals_departures_and_refuses_a_spoilt_copy(
    copy: Path, ws: Workspace
) -> None:
    runner, key = CliRunner(), hub_public(ws)
    shown = runner.invoke(app, ["audit", "show", str(copy), "--site", "lakeside"])
    size = sum(info.size for info in ws.store.list("sites/lakeside/"))
    assert f"{size} bytes have left lakeside" in shown.output
    assert runner.invoke(app, ["audit", "verify", str(copy), "--hub-key", key]).exit_code == 0
    lines = read_log(copy)
    write_log(copy, [*lines[:7], *lines[8:]])
    refused = runner.invoke(app, ["audit", "verify", str(copy), "--hub-key", key])
    assert isinstance(refused.exception, AuditError)
    assert refused.exception.what.startswith("entry 7 is missing")


def test_a_hub_that_leaves_a_site_out_of_the_merge_is_caught(copy: Path, ws: Workspace) -> None:
    merge = read_record(copy, merge_key(1))
    merge["receipts"] = [receipt for receipt in merge["receipts"] if receipt["site"] != "lakeside"]
    write_record(copy, merge_key(1), ws, merge)
    assert any("round 1 leaves lakeside out" in fault.why for fault in verified(copy, ws).faults)
