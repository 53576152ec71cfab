"""The store gives back the bytes that were announced, or says precisely why it cannot."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from model.errors import (
    ConfigError,
    DiskError,
    IntegrityError,
    ObjectMissingError,
    PackageError,
    StoreDeniedError,
    StoreUnreachableError,
)
from tasks.files import json_bytes, sha256_bytes, sha256_file, write_atomic
from tasks.ledger import (
    adapter_key,
    base_key,
    candidate_key,
    card_key,
    checked_name,
    evaluation_key,
    find_record,
    get_record,
    plan_key,
    put_record,
    report_key,
)
from tasks.records import Record
from tasks.seal import SEAL_BYTES
from tasks.settings import Environment
from tasks.store import Store
from tasks.trust import have_all_identities, with_seals


class Score(Record):
    case: str
    dice: float | None
    slices: tuple[int, ...] = ()


def raw_put(store: Store, key: str, data: bytes, metadata: dict[str, str]) -> None:
    store._client.put_object(Bucket=store.bucket, Key=key, Body=data, Metadata=metadata)


# --- bytes


@pytest.mark.parametrize("size", [0, 1, 100_000, 9 * 2**20 + 7])
def test_bytes_come_back_as_they_went(store: Store, size: int) -> None:
    data = bytes(index % 251 for index in range(min(size, 2**16))) * (size // 2**16 + 1)
    data = data[:size]
    sha256 = store.put("a/b.bin", data)
    assert sha256 == sha256_bytes(data) == store.sha256_of("a/b.bin")
    assert store.get("a/b.bin", sha256=sha256, max_bytes=size) == data
    assert (store.bytes_sent, store.bytes_received) == (size, size)


def test_a_flipped_byte_is_refused(store: Store) -> None:
    data = bytearray(b"factors of an adapter")
    sha256 = store.put("adapter", bytes(data))
    data[3] ^= 1
    raw_put(store, "adapter", bytes(data), {"sha256": sha256})
    with pytest.raises(IntegrityError, match="metadata announced"):
        store.get("adapter")


def test_a_proxy_may_change_the_case_of_header_names(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = store.put("a", b"data")
    head = store._head("a")
    monkeypatch.setattr(store, "_head", lambda _: {**head, "Metadata": {"Sha256": sha256}})
    assert store.get("a") == b"data"
    assert store.sha256_of("a") == sha256


def test_bytes_other_than_the_record_announced_are_refused(store: Store) -> None:
    sha256 = store.put("adapter", b"first")
    store.put("adapter", b"second")
    with pytest.raises(IntegrityError, match="its record announced"):
        store.get("adapter", sha256=sha256)


def test_bytes_nobody_vouches_for_are_refused(store: Store) -> None:
    raw_put(store, "adapter", b"anything", {})
    with pytest.raises(IntegrityError, match="announces no sha256"):
        store.get("adapter")
    assert store.sha256_of("adapter") is None
    assert store.get("adapter", sha256=sha256_bytes(b"anything")) == b"anything"


def test_an_object_too_large_is_refused_before_its_body_is_read(store: Store) -> None:
    store.put("adapter", bytes(5000))
    with pytest.raises(PackageError, match="5000 bytes, at most 4999"):
        store.get("adapter", max_bytes=4999)
    assert store.bytes_received == 0


def test_a_missing_object_is_missing_not_an_answer(store: Store) -> None:
    assert not store.exists("nothing")
    assert store.sha256_of("nothing") is None
    assert store.list("nothing") == []
    with pytest.raises(ObjectMissingError) as error:
        store.get("nothing")
    assert error.value.where == f"{store.endpoint}/{store.bucket}/nothing"


def test_a_listing_goes_beyond_one_page_and_is_sorted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.store._PAGE_KEYS", 3)
    store.put("manyfold", b"not below the prefix")
    for index in reversed(range(10)):
        store.put(f"many/{index}", bytes(index))
    listed = store.list("many/")
    assert [(info.key, info.size) for info in listed] == [(f"many/{index}", index) for index in range(10)]
    assert all(info.modified.tzinfo is not None for info in listed)


def test_threads_share_a_store(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: store.put(f"{index}", bytes([index]) * 1000), range(40)))
        assert list(pool.map(lambda index: store.get(f"{index}")[0], range(40))) == list(range(40))
    assert (store.bytes_sent, store.bytes_received) == (40_000, 40_000)


# --- refusals and silence


def test_wrong_credentials_are_denied_and_never_shown(s3_environment: Environment, store: Store) -> None:
    store.put("a", b"1")
    wrong = s3_environment.model_copy(update={"s3_secret_key": SecretStr("wrong-secret")})
    for request in (lambda s: s.get("a"), lambda s: s.put("a", b"2"), lambda s: s.list("")):
        with pytest.raises(StoreDeniedError, match="CARDIOFED_S3_SECRET_KEY") as error:
            request(Store(wrong))
        assert "wrong-secret" not in str(error.value)


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_closed_port_is_reported_at_once(s3_environment: Environment) -> None:
    closed = s3_environment.model_copy(update={"s3_endpoint": "http://user:pass@127.0.0.1:9"})
    started = time.monotonic()
    with pytest.raises(StoreUnreachableError) as error:
        Store(closed).list("")
    assert time.monotonic() - started < 10
    assert error.value.where.startswith("http://127.0.0.1:9/")


def test_a_silent_server_is_reported_after_two_short_attempts(
    s3_environment: Environment, silent_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.store._PROBE_READ_S", 1)
    started = time.monotonic()
    with pytest.raises(StoreUnreachableError):
        Store(s3_environment.model_copy(update={"s3_endpoint": silent_endpoint})).get("a")
    assert 2 <= time.monotonic() - started < 5


def test_an_endpoint_that_is_none_is_a_setting_to_mend(s3_environment: Environment) -> None:
    with pytest.raises(ConfigError, match="no usable endpoint"):
        Store(s3_environment.model_copy(update={"s3_endpoint": "127.0.0.1"}))


class BreakingLink:
    """A TCP relay that cuts each connection after so many bytes towards the client."""

    def __init__(self, target: str, cut_bytes: int) -> None:
        host, _, port = target.removeprefix("http://").partition(":")
        self._target, self._cut, self.cuts = (host, int(port)), cut_bytes, 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            threading.Thread(target=self._copy, args=(client, server, None), daemon=True).start()
            self._copy(server, client, self._cut)
            for end in (client, server):
                end.shutdown(socket.SHUT_RDWR)

    def _copy(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        try:
            while data := source.recv(65536):
                if limit is not None and (limit := limit - len(data)) < 0:
                    self.cuts += 1
                    return
                sink.sendall(data)
        except OSError:
            return


def test_a_download_goes_on_where_the_link_broke(store: Store, s3_environment: Environment) -> None:
    data = bytes(range(256)) * 8000
    sha256 = store.put("adapter", data)
    link = BreakingLink(s3_environment.s3_endpoint, cut_bytes=600_000)
    behind = Store(s3_environment.model_copy(update={"s3_endpoint": link.url}))
    assert behind.get("adapter", sha256=sha256) == data
    assert link.cuts >= 3
    assert behind.bytes_received == len(data)  # nothing was paid twice
    link.close()


# --- ledger


def test_keys_are_those_of_the_protocol() -> None:
    assert plan_key(7) == "global/rounds/0007/plan.json"
    assert adapter_key("st-anna", 7) == "sites/st-anna/rounds/0007/adapter.safetensors"
    assert evaluation_key("st-anna", 7) == "sites/st-anna/rounds/0007/evaluation.json"
    assert candidate_key("4f1c", 7) == "global/rounds/0007/candidates/4f1c.safetensors"
    assert card_key("st-anna") == "sites/st-anna/card.json"
    assert report_key(7) == "global/rounds/0007/report.html"
    assert base_key("a" * 64) == f"global/base/{'a' * 64}.safetensors"


@given(st.text(max_size=50))
def test_a_name_is_harmless_in_a_key_or_refused(name: str) -> None:
    try:
        checked = checked_name(name)
    except ConfigError:
        return
    assert checked == name
    assert name.isascii() and not set(name) & set("/\\. \n%*") and 1 <= len(name) <= 40


@pytest.mark.parametrize("name", ["", "..", "a/b", "St-Anna", "-a", "a" * 41, "a\n", "a.b", "ä"])
def test_a_name_that_could_become_a_path_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used in a key"):
        card_key(name)


@pytest.mark.parametrize("number", [-1, 10_000])
def test_a_round_that_cannot_be_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        plan_key(number)


SCORE = "global/score.json"


@pytest.fixture
def sealed(store: Store, tmp_path: Path) -> Store:
    """The hub's store: records carry its seal."""
    have_all_identities(tmp_path, ())
    return with_seals(store, tmp_path)


def test_a_record_comes_back_equal_and_equal_records_have_equal_bytes(sealed: Store) -> None:
    score = Score(case="p-01", dice=0.25, slices=(1, 2))
    assert find_record(sealed, SCORE, Score) is None
    assert put_record(sealed, SCORE, score) == put_record(sealed, SCORE, score)
    assert get_record(sealed, SCORE, Score) == score == find_record(sealed, SCORE, Score)
    assert sealed.get(SCORE).split(b"\n", 1)[1] == b'{"case":"p-01","dice":0.25,"slices":[1,2],"version":1}\n'


def test_a_record_with_nan_is_not_written(sealed: Store) -> None:
    with pytest.raises(PackageError, match="NaN"):
        put_record(sealed, SCORE, Score(case="p-01", dice=float("nan")))
    assert not sealed.exists(SCORE)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"case":"p","dice":"high","more":1}', "dice: .*; more: "),
        (b'{"case":"p"}', "dice: Field required"),
        (b'{"case":"p","dice":NaN}', "NaN is not JSON"),
        (b'{"case":"p","case":"q","dice":null}', "twice"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"", "no JSON"),
    ],
)
def test_a_malformed_record_names_its_faults(sealed: Store, data: bytes, said: str) -> None:
    sealed.put(SCORE, sealed.seals.sealed(SCORE, data))
    with pytest.raises(PackageError, match=said) as error:
        get_record(sealed, SCORE, Score)
    assert error.value.where == SCORE


def test_a_record_too_large_is_refused(sealed: Store) -> None:
    sealed.put(SCORE, b" " * (101 + SEAL_BYTES))
    with pytest.raises(PackageError, match=f"at most {100 + SEAL_BYTES}"):
        get_record(sealed, SCORE, Score, max_bytes=100)


# --- files


def test_a_file_is_written_whole_with_its_mode_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret.json"
    write_atomic(path, b"one", mode=0o600)
    write_atomic(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert sha256_file(path) == sha256_bytes(b"two")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("code", "status"), [("XMinioStorageFull", 507), ("InternalError", 500)])
def test_a_store_that_is_full_or_only_says_that_it_failed_points_at_its_room(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: str, status: int
) -> None:
    refusal = ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject"
    )
    monkeypatch.setattr(store._client, "put_object", Mock(side_effect=refusal))
    with pytest.raises(StoreUnreachableError) as refused:
        store.put("global/a.json", b"{}")
    assert code in refused.value.what
    assert "quota" in refused.value.mend


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "adapter"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskError, match="no space left for 3 bytes") as error:
        write_atomic(path, b"new")
    assert error.value.where == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(DiskError):
        write_atomic(tmp_path / "a" / "b", b"new")


def test_canonical_json_ignores_the_order_of_keys() -> None:
    assert json_bytes({"b": 1, "a": "é"}) == json_bytes({"a": "é", "b": 1}) == '{"a":"é","b":1}\n'.encode()
    with pytest.raises(ValueError, match="Out of range"):
        json_bytes(float("inf"))
