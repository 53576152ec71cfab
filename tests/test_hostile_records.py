"""Records that anybody may have written: refused early, in bounded time and memory, and told in few words."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import report_files as files
from doctor_files import Federation, federation
from federation_files import SITES, delete, found, new_run, trained, use_store
from hypothesis import given
from hypothesis import strategies as st

from infra.s3_server import S3Server
from model.errors import ConfigError, PackageError
from tasks.admit import admit_updates, check_passport
from tasks.answers import find_answer
from tasks.cases import SiteCard
from tasks.files import json_bytes
from tasks.homes import read_invitation
from tasks.ledger import candidates_key, card_key, get_record, put_record, senders_key, update_key
from tasks.limits import (
    DEPTH_MAX,
    INVITATION,
    OF_HUB,
    OF_SITE,
    REASON_LETTERS,
    Limits,
    explain,
    is_sound,
    limits_of,
    parse_record,
)
from tasks.records import Architecture, Evaluation, MergeRecord, Plan, Ratings, Senders, Update, Verdict
from tasks.seal import SEAL_BYTES
from tasks.site_round import told_refusal
from tasks.store import Store
from tasks.workspace import Workspace

__all__ = ["federation"]

FAULTY = "lakeside"
VALID = files.update(1, FAULTY, 80).model_dump(mode="json")
SECONDS_MAX, MEGABYTES_MAX = 3.0, 64.0
"""For one record of a site: ten times what this takes alone on a slow core."""


def passport(**raw: str) -> bytes:
    """A passport with some fields as literally given."""
    text = json.dumps(VALID)
    for name, value in raw.items():
        old = f'"{name}": {json.dumps(VALID[name])}'
        assert old in text
        text = text.replace(old, f'"{name}": {value}')
    return text.encode()


def read(data: bytes, limits: Limits = OF_SITE) -> Update:
    return parse_record(data, Update, "sites/lakeside/rounds/0001/update.json", limits)


def many_fields(count: int) -> bytes:
    return (json.dumps(VALID)[:-1] + "".join(f',"{k:x}":1' for k in range(count)) + "}").encode()


N = OF_SITE.n_bytes
HOSTILE: dict[str, tuple[bytes, str]] = {
    "infinite by its exponent": (passport(seconds="1e999"), "no usual number"),
    "infinite in words": (passport(seconds='"Infinity"'), "valid number"),
    "NaN": (passport(seconds="NaN"), "NaN is not JSON"),
    "a number of 4000 digits": (passport(train_slices="9" * 4000), "no usual number"),
    "a number of 5000 digits": (passport(train_slices="9" * 5000), "no usual number"),
    "a number with 900 kB of decimals": (passport(seconds="1." + "9" * 900_000), "no usual number"),
    "a truth for a number": (passport(round="true"), "round: Input should be a valid integer"),
    "a text for a number": (passport(round='"1"'), "round: Input should be a valid integer"),
    "a text of 900 kB": (passport(code_version=f'"{"x" * 900_000}"'), "at most 300"),
    "a zero byte": (passport(code_version='"a\\u0000b"'), "do not print"),
    "a terminal's command": (passport(code_version='"\\u001b[2J"'), "do not print"),
    "text that runs backwards": (passport(code_version='"\\u202egnp"'), "do not print"),
    "half a letter": (passport(code_version='"\\ud800"'), "do not print"),
    "a field twice": (passport(round='1, "round": 1'), "stands there twice"),
    "an unknown field": (many_fields(1), "0: Extra inputs"),
    "20,000 unknown fields": (many_fields(20_000), "20000 faults"),
    "90,000 unknown fields": (many_fields(90_000), "values"),
    "60,000 wrong losses": (passport(curve="[" + '"",' * 60_000 + '""]'), "60001 faults"),
    "450,000 losses": (passport(curve="[" + "1," * 450_000 + "1]"), "values"),
    "a megabyte of brackets": (b"[" * N, f"nested deeper than {DEPTH_MAX}"),
    "a megabyte of closing brackets": (b"]" * N, "closes nothing"),
    "a megabyte of empty lists": (b"[" + b"[]," * (N // 3 - 2) + b"[]]", "values"),
    "a megabyte of quotes": (b'"' * N, "values"),
    "a megabyte of escaped quotes": (b'"' + b'\\"' * (N // 2 - 1), "Unterminated"),
    "a megabyte of backslashes": (b"\\" * N, "Expecting value"),
    "a megabyte of blanks": (b" " * N, "Expecting value"),
    "nested objects": (passport(labels='{"a":' * 5000 + "1" + "}" * 5000), "nested deeper"),
    "too long by a byte": (json.dumps(VALID).encode().ljust(N + 1), f"{N + 1} bytes, at most {N}"),
    "another encoding": (json.dumps(VALID).encode("utf-16"), "utf-8"),
    "a byte order mark": (b"\xef\xbb\xbf" + json.dumps(VALID).encode(), "BOM"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_record_is_refused_soon_and_in_few_words(what: str) -> None:
    data, reason = HOSTILE[what]
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(PackageError, match=reason) as said:
        read(data)
    took, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < SECONDS_MAX and peak < MEGABYTES_MAX * 1e6
    assert len(str(said.value)) < 2000 and said.value.what.isprintable()


def test_the_same_record_without_hostility_is_read() -> None:
    assert read(json.dumps(VALID).encode()) == files.update(1, FAULTY, 80)


def test_records_of_the_hub_may_be_longer_than_those_of_sites() -> None:
    assert limits_of("global/rounds/0001/merge.json") == OF_HUB
    assert limits_of(update_key(FAULTY, 1)) == OF_SITE
    sites = {f"site-{k:03d}": 100 for k in range(40)}
    record = files.merge(1, sites)
    data = json_bytes(record.model_dump(mode="json"))
    assert parse_record(data, MergeRecord, "global/rounds/0001/merge.json", OF_HUB) == record


@pytest.mark.parametrize(
    "record",
    [
        files.ratings(1, FAULTY, list(files.SITES)),
        files.verdict(1, FAULTY),
        files.evaluation(1, FAULTY),
        files.card(FAULTY),
    ],
    ids=lambda record: type(record).__name__,
)
def test_honest_records_of_sites_are_far_below_the_limits(
    record: Ratings | Verdict | Evaluation | SiteCard,
) -> None:
    data = json_bytes(record.model_dump(mode="json"))
    assert len(data) < OF_SITE.n_bytes / 100
    assert parse_record(data, type(record), "sites/lakeside/x.json", OF_SITE) == record


@pytest.mark.parametrize("value", [1.5, 1e-300, -0.0, 2**53, -(10**17), "é ß 心", [], {}, None, True])
def test_what_json_can_say_with_measure_is_read_as_it_is(value: object) -> None:
    tree = {**VALID, "labels": {"odd": value}}
    try:
        read(json.dumps(tree).encode())
    except PackageError as error:
        assert "labels.odd" in error.what or not isinstance(value, int)


def test_a_long_announcement_is_refused_before_it_is_downloaded(store: Store) -> None:
    store.put(update_key(FAULTY, 1), b" " * (2 * N))
    received = store.bytes_received
    with pytest.raises(PackageError, match=f"at most {N + SEAL_BYTES} are accepted"):
        get_record(store, update_key(FAULTY, 1), Update)
    assert store.bytes_received == received
    assert find_answer(store, update_key(FAULTY, 1), Update) is None


@dataclass(frozen=True)
class Trained:
    """A round with all updates, and what the faulty site really announced."""

    ws: Workspace
    update: bytes


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Trained]:
    with pytest.MonkeyPatch.context() as patch:
        use_store(patch, s3_server.environment(bucket="hostile-records"))
        ws = trained(found(new_run(tmp_path_factory, tmp_path_factory.mktemp("records") / "run")))
        yield Trained(ws, ws.store.get(update_key(FAULTY, 1)))


@pytest.fixture
def round_1(shared: Trained) -> Workspace:
    """The round before admission, as the sites left it."""
    delete(shared.ws.store, candidates_key(1))
    shared.ws.store.put(update_key(FAULTY, 1), shared.update)
    return shared.ws


def announce(ws: Workspace, **said: object) -> None:
    update = get_record(ws.store, update_key(FAULTY, 1), Update)
    put_record(ws.store, update_key(FAULTY, 1), update.model_copy(update=said))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"dtype": "fp32"}, "the passport announces fp32 in"),
        ({"adapter_bytes": 1}, "in 1 bytes, the package is int8 in"),
        ({"seed": 2}, "seed is 2, the round has 1"),
        ({"curve": (1.0,) * 5000}, "curve has 5000 losses, the round has 2 steps"),
        ({"architecture": Architecture(channels=(9,) * 9000)}, "architecture is"),
        ({"plan_sha256": "../" * 90}, "plan_sha256 is ../"),
        ({"code_version": "\n[/red]" * 9}, "do not print"),
        ({"labels": {"x" * 9000: 1}}, "at most 300 are read"),
    ],
)
def test_a_passport_that_lies_is_quarantined_and_nobody_else(
    round_1: Workspace, said: dict[str, object], reason: str
) -> None:
    announce(round_1, **said)
    record = admit_updates(round_1, 1)
    (refusal,) = record.quarantined
    assert (refusal.site, len(record.candidates)) == (FAULTY, len(SITES) - 1)
    assert reason in refusal.reason
    assert refusal.reason.isprintable() and len(refusal.reason) <= REASON_LETTERS
    assert told_refusal(round_1, 1, FAULTY) == refusal.reason
    assert told_refusal(round_1, 1, "hillcrest") == ""


def test_a_number_that_json_does_not_have_stops_nobody(round_1: Workspace, shared: Trained) -> None:
    data = shared.update.replace(b'"seconds":', b'"seconds":1e999,"x":')
    round_1.store.put(update_key(FAULTY, 1), data)
    assert [c.site for c in admit_updates(round_1, 1).quarantined] == [FAULTY]


def test_what_the_hub_keeps_of_passports_has_a_bound(round_1: Workspace) -> None:
    announce(round_1, code_version="v" * 300)
    assert admit_updates(round_1, 1).quarantined == ()
    senders = get_record(round_1.store, senders_key(1), Senders)
    assert len(json_bytes(senders.model_dump(mode="json"))) < 4000 * len(SITES)


def test_a_passport_quotes_no_more_of_a_stranger_than_a_line() -> None:
    plan: Plan = files.plan(1, files.SITES)
    lies = files.update(1, FAULTY, 80).model_copy(update={"labels": {str(k): k for k in range(10_000)}})
    with pytest.raises(PackageError) as said:
        check_passport(lies, plan, files.sha("plan 1"), FAULTY)
    assert len(said.value.what) < 300


GOOD_CARD = files.card(FAULTY)


@pytest.mark.parametrize(
    "lie",
    [
        {"slices": {}},
        {"slices": {"train": 0}},
        {"slices": {"train": -5}},
        {"slices": {"train": 10**17}},
        {"dataset_md5": "x" * 300},
        {"dataset_md5": "../../etc"},
    ],
)
def test_a_card_that_no_round_can_be_planned_with_is_as_none(
    federation: Federation, lie: dict[str, object]
) -> None:
    assert is_sound(GOOD_CARD)
    card = get_record(federation.store, card_key(FAULTY), SiteCard).model_copy(update=lie)
    assert not is_sound(card)
    put_record(federation.store, card_key(FAULTY), card)
    ws = federation.gather()
    assert FAULTY not in ws.store.get("global/federation.json").decode()


@pytest.mark.parametrize(
    "data", [b"[" * 10_000_000, b'{"home": "\\u0000"}', b"\x00" * 100, b"{}", b'{"params": 1e999}']
)
def test_a_hostile_invitation_is_refused_without_reading_it_whole(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "invitation").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ConfigError) as said:
        read_invitation(tmp_path / "invitation")
    assert tracemalloc.get_traced_memory()[1] < 10 * INVITATION.n_bytes
    tracemalloc.stop()
    assert len(str(said.value)) < 2000


@given(st.text(max_size=2000))
def test_an_explanation_is_one_printable_line_whatever_it_quotes(text: str) -> None:
    said = explain(text)
    assert len(said) <= REASON_LETTERS and (said.isprintable() or not said)
    assert not any(sign in said for sign in ("<", ">", "](", "[/", "://", "\n"))
    assert explain(said) == said
