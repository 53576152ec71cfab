"""What travels is for its readers alone: the store's operator finds no factor, and another's key opens nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from federation_files import SITES, delete, finish_round, found, new_run, trained, use_store
from hypothesis import given
from hypothesis import strategies as st
from pyrage.x25519 import Identity as AgeKey

from infra.s3_server import S3Server
from model.errors import DecryptionError, IntegrityError, KeyFileError
from model.package import PackageView
from tasks.adapt import adapt_site
from tasks.admit import admit_updates
from tasks.close import close_round
from tasks.files import sha256_bytes
from tasks.identity import AGE_FILE, read_identity
from tasks.judge import judge_merged
from tasks.ledger import (
    adapter_key,
    candidate_key,
    candidates_key,
    get_record,
    hub_keys_key,
    merge_key,
    merged_key,
    rest_key,
    senders_key,
    site_keys_key,
    update_key,
)
from tasks.merge import merge_updates, read_carry
from tasks.mirror import keep_round
from tasks.open import open_round
from tasks.payloads import get_payload, wrap
from tasks.rate import rate_candidates
from tasks.records import Candidates, MergeRecord, Senders, Update
from tasks.sealed_box import MAGIC, is_sealed, open_sealed, seal_for
from tasks.site_round import next_duty
from tasks.step_keys import deliver_step_keys, hub_step_keys, site_step_keys
from tasks.store import Store
from tasks.train import train_site
from tasks.trust import HUB, identity_folder, pin_hub
from tasks.weights import round_weights
from tasks.workspace import Workspace

WINDOW = 24  # bytes of factors that an operator would have to find; by chance none is found


def public(key: AgeKey) -> str:
    return str(key.to_public())


@given(st.binary(max_size=2000))
def test_every_recipient_opens_what_was_encrypted_and_nobody_else(data: bytes) -> None:
    one, two, other = AgeKey.generate(), AgeKey.generate(), AgeKey.generate()
    sealed = seal_for(data, [public(one), public(two)])
    assert is_sealed(sealed) and (len(data) < WINDOW or data not in sealed)
    assert open_sealed(sealed, [one], "x") == open_sealed(sealed, [other, two], "x") == data
    with pytest.raises(DecryptionError, match="for other keys") as refused:
        open_sealed(sealed, [other], "global/x")
    assert (refused.value.where, refused.value.exit_code) == ("global/x", 9)
    assert "bring back the key" in refused.value.mend


@pytest.mark.parametrize("place", [len(MAGIC) + 20, -40, -1])
def test_one_changed_byte_is_noticed(place: int) -> None:
    key = AgeKey.generate()
    sealed = bytearray(seal_for(b"factors" * 50, [public(key)]))
    sealed[place] ^= 1
    with pytest.raises(DecryptionError):
        open_sealed(bytes(sealed), [key], "x")


@pytest.mark.parametrize("keys", [[], ["age1nonsense"]])
def test_nothing_is_encrypted_to_nobody(keys: list[str]) -> None:
    with pytest.raises(KeyFileError, match="cannot be encrypted to"):
        seal_for(b"x", keys)


def test_step_keys_reach_late_joiners_and_are_renewed_when_somebody_has_gone(store: Store) -> None:
    hub, a, b, c = (AgeKey.generate() for _ in range(4))
    first = deliver_step_keys(store, hub, {"a": public(a), "b": public(b)})
    before = {info.key: store.sha256_of(info.key) for info in store.list("")}
    assert deliver_step_keys(store, hub, {"a": public(a), "b": public(b)}) == first
    assert {info.key: store.sha256_of(info.key) for info in store.list("")} == before
    old_step = seal_for(b"an early step", [first])
    assert deliver_step_keys(store, hub, {"a": public(a), "b": public(b), "c": public(c)}) == first
    assert open_sealed(old_step, site_step_keys(store, "c", c), "x") == b"an early step"
    second = deliver_step_keys(store, hub, {"a": public(a), "c": public(c)})
    new_step = seal_for(b"a late step", [second])
    for site, key in (("a", a), ("c", c)):
        keys = site_step_keys(store, site, key)
        assert (open_sealed(old_step, keys, "x"), open_sealed(new_step, keys, "x")) == (
            b"an early step",
            b"a late step",
        )
    with pytest.raises(DecryptionError, match="for other keys"):
        open_sealed(new_step, site_step_keys(store, "b", b), "x")
    assert len(hub_step_keys(store, hub)) == 2


def test_a_replaced_key_of_a_site_gets_all_keys_and_the_old_one_no_new_ones(store: Store) -> None:
    hub, old, new = (AgeKey.generate() for _ in range(3))
    first = deliver_step_keys(store, hub, {"a": public(old)})
    known = site_step_keys(store, "a", old)
    second = deliver_step_keys(store, hub, {"a": public(new)})
    assert first != second
    assert len(site_step_keys(store, "a", new)) == 2
    with pytest.raises(DecryptionError):
        site_step_keys(store, "a", old)
    with pytest.raises(DecryptionError):
        open_sealed(seal_for(b"x", [second]), known, "x")


def test_a_hub_with_another_key_and_a_site_without_keys_are_told_so(store: Store) -> None:
    deliver_step_keys(store, AgeKey.generate(), {"a": public(AgeKey.generate())})
    with pytest.raises(DecryptionError, match="for other keys") as refused:
        hub_step_keys(store, AgeKey.generate())
    assert refused.value.where == hub_keys_key()
    with pytest.raises(DecryptionError, match="was given no keys") as unknown:
        site_step_keys(store, "late", AgeKey.generate())
    assert unknown.value.where == site_keys_key("late")


@dataclass(frozen=True)
class Played:
    """A round of an encrypted federation, and its like in the clear."""

    ws: Workspace
    clear: Workspace


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Played]:
    runs = []
    for name, encrypt in (("clear", "false"), ("sealed", "true")):
        with pytest.MonkeyPatch.context() as patch:
            use_store(patch, s3_server.environment(bucket=f"veil-{name}"))
            settings = (
                f"privacy.encrypt={encrypt}",
                "rating.raters=1",
                "package.upload_bytes=1000",
                "package.download_bytes=1500",
            )
            ws = found(new_run(tmp_path_factory, tmp_path_factory.mktemp(name) / "run", *settings))
            finish_round(trained(ws), 1)
            runs.append(ws)
    with pytest.MonkeyPatch.context() as patch:
        use_store(patch, s3_server.environment(bucket="veil-sealed"))
        keep_round(runs[1], 1)
        open_round(runs[1], 2)
        yield Played(runs[1], runs[0])


def candidates(ws: Workspace) -> Candidates:
    return get_record(ws.store, candidates_key(1), Candidates)


def clear_packages(ws: Workspace) -> list[bytes]:
    """Everything that travelled, as its readers see it."""
    merge = get_record(ws.store, merge_key(1), MergeRecord)
    sent = [(ws.site_home(site) / "updates" / "0001.safetensors").read_bytes() for site in SITES]
    rest = get_payload(ws.store, rest_key(1), str(merge.rest_sha256), HUB)
    return [*sent, get_payload(ws.store, merged_key(1), merge.merged_sha256, HUB), rest]


def windows(package: bytes) -> list[bytes]:
    """Pieces of the factors, all over the package."""
    view = PackageView(package)
    n = sum(out * rank + rank * inner for out, inner, rank in view.sizes.values())
    start = max(0, len(package) // 2 - n // 4)
    pieces = [package[at : at + WINDOW] for at in range(start, start + n // 3, WINDOW)]
    return [piece for piece in pieces if len(set(piece)) > 8]  # not a run of zeros


def seen_by_operator(store: Store) -> bytes:
    """Every object as it lies there; what DVC wrote announces no hash."""

    def read(key: str) -> bytes:
        data: bytes = store._client.get_object(Bucket=store.bucket, Key=key)["Body"].read()
        return data

    return b"".join(read(info.key) for info in store.list(""))


def test_the_stores_operator_finds_no_piece_of_any_factor(played: Played) -> None:
    stored = seen_by_operator(played.ws.store)
    packages = clear_packages(played.ws)
    assert {info.key.split("/")[0] for info in played.ws.store.list("")} == {"dvc", "global", "hub", "sites"}
    for package in packages:
        pieces = windows(package)
        assert len(pieces) > 5
        assert not any(piece in stored for piece in pieces)
    in_the_clear = seen_by_operator(played.clear.store)
    for package in clear_packages(played.clear):
        assert all(piece in in_the_clear for piece in windows(package))


def test_encryption_changes_no_bit_of_what_is_learned(played: Played) -> None:
    for site in SITES:
        ours, theirs = (get_record(ws.store, update_key(site, 1), Update) for ws in (played.ws, played.clear))
        assert ours.adapter_sha256 == theirs.adapter_sha256
    opened, homes = open_round(played.ws, 2), (played.ws.site_home("st-anna"), played.ws.hub_home)
    assert len(opened.steps) == 1
    site, hub = (round_weights(played.ws.store, opened, home) for home in homes)
    assert all(bool((site[name] == hub[name]).all()) for name in hub)


def test_what_the_mirror_keeps_at_the_hub_is_the_step_in_the_clear(played: Played) -> None:
    merge = get_record(played.ws.store, merge_key(1), MergeRecord)
    kept = (played.ws.rounds / "0001" / "merged.safetensors").read_bytes()
    assert sha256_bytes(kept) == merge.merged_sha256
    assert is_sealed((played.ws.versions / "rounds" / "0001" / "merged.safetensors").read_bytes())


def test_encrypted_candidates_have_one_size_and_are_for_their_rater_alone(played: Played) -> None:
    ws, record = played.ws, candidates(played.ws)
    senders = get_record(ws.store, senders_key(1), Senders).updates
    assert {info.size for info in ws.store.list("global/rounds/0001/candidates/")} == {
        record.candidates[0].n_bytes
    }
    for c in record.candidates:
        (rater,) = (senders[blind].site for blind, rated in record.assigned.items() if c.id in rated)
        key = candidate_key(c.id, 1)
        assert sha256_bytes(get_payload(ws.store, key, c.sha256, rater)) == c.sha256
        for site in set(SITES) - {rater}:
            with pytest.raises(DecryptionError, match="for other keys"):
                get_payload(ws.store, key, c.sha256, site)


def test_no_site_reads_what_another_sent_or_what_the_hub_carries_over(played: Played) -> None:
    ws = played.ws
    sent = get_record(ws.store, update_key("lakeside", 1), Update).adapter_sha256
    assert get_payload(ws.store, adapter_key("lakeside", 1), sent, "lakeside")
    merge = get_record(ws.store, merge_key(1), MergeRecord)
    for key, sha256 in ((adapter_key("lakeside", 1), sent), (rest_key(1), str(merge.rest_sha256))):
        with pytest.raises(DecryptionError, match="for other keys"):
            get_payload(ws.store, key, sha256, "st-anna")
    assert read_carry(ws, open_round(ws, 2)) is not None


def test_a_missing_or_foreign_key_of_a_site_is_named(played: Played) -> None:
    ws = played.ws
    merge, path = (
        get_record(ws.store, merge_key(1), MergeRecord),
        identity_folder(ws.root, "lakeside") / AGE_FILE,
    )
    before = path.read_bytes()
    try:
        path.write_text(f"{AgeKey.generate()}\n")
        fresh = Workspace(ws.root, ws.params)
        with pytest.raises(DecryptionError, match="for other keys") as foreign:
            get_payload(fresh.store, merged_key(1), merge.merged_sha256, "lakeside")
        assert foreign.value.where == site_keys_key("lakeside")
        path.unlink()
        fresh = Workspace(ws.root, ws.params)
        with pytest.raises(KeyFileError) as missing:
            get_payload(fresh.store, merged_key(1), merge.merged_sha256, "lakeside")
        assert missing.value.where == str(path)
    finally:
        path.write_bytes(before)
        path.chmod(0o600)


@pytest.fixture
def machines(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    s3_server: S3Server,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Workspace]:
    """Hub and hospitals of an encrypted federation, each with a folder, keys and a pinned hub of its own."""
    use_store(monkeypatch, s3_server.environment(bucket=store.bucket))
    ws = found(new_run(tmp_path_factory, tmp_path / "all", "privacy.encrypt=true"))
    made = {name: Workspace(tmp_path / name, ws.params) for name in (HUB, *SITES)}
    for name, machine in made.items():
        shutil.copytree(identity_folder(ws.root, name), machine.root)
        if name != HUB:
            pin_hub(machine.root, read_identity(made[HUB].root).public)
            shutil.copytree(ws.data_home(name), machine.data_home(name))
    shutil.rmtree(ws.root)
    return made


def test_machines_that_share_nothing_but_the_store_play_encrypted_rounds(
    machines: dict[str, Workspace],
) -> None:
    hub = machines[HUB]

    def each(verb: Callable[[Workspace, int, str], object], number: int, sites: Iterable[str]) -> None:
        for site in sites:
            verb(machines[site], number, site)

    for number, present in ((1, SITES[:2]), (2, SITES)):  # the third has missed a step by then
        open_round(hub, number)
        each(train_site, number, present)
        record = admit_updates(hub, number)
        assert (len(record.candidates), record.quarantined) == (len(present), ())
        each(rate_candidates, number, present)
        merge_updates(hub, number)
        each(judge_merged, number, present)
        assert close_round(hub, number).outcome != "failed"
        each(adapt_site, number, present)
        assert [next_duty(machines[site], number, site) for site in present] == ["over"] * len(present)


@pytest.fixture
def sealed(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    s3_server: S3Server,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> Workspace:
    """A round with all updates, encrypted."""
    use_store(monkeypatch, s3_server.environment(bucket=store.bucket))
    return trained(found(new_run(tmp_path_factory, tmp_path / "run", "privacy.encrypt=true")))


def test_what_cannot_be_opened_or_came_in_the_clear_is_quarantined(sealed: Workspace) -> None:
    store = sealed.store
    kept = {site: (sealed.site_home(site) / "updates" / "0001.safetensors").read_bytes() for site in SITES}
    changed = bytearray(store.get(adapter_key("lakeside", 1)))
    changed[-5] ^= 1
    store.put(adapter_key("hillcrest", 1), kept["hillcrest"])
    store.put(adapter_key("lakeside", 1), bytes(changed))
    store.put(adapter_key("st-anna", 1), wrap(store, kept["st-anna"], ["st-anna"]))
    reasons = {refusal.site: refusal.reason for refusal in admit_updates(sealed, 1).quarantined}
    assert reasons["hillcrest"].startswith("the update travels in the clear")
    assert "changed or cut" in reasons["lakeside"]
    assert "for other keys" in reasons["st-anna"]


def test_another_package_in_the_envelope_is_quarantined(sealed: Workspace) -> None:
    kept = (sealed.site_home("hillcrest") / "updates" / "0001.safetensors").read_bytes()
    sealed.store.put(adapter_key("lakeside", 1), wrap(sealed.store, kept, [HUB]))
    (refusal,) = admit_updates(sealed, 1).quarantined
    assert "not the announced package" in refusal.reason


def test_a_retry_leaves_the_object_that_is_there_and_replaces_a_lost_one(sealed: Workspace) -> None:
    store, key = sealed.store, adapter_key("lakeside", 1)
    before = store.get(key)
    delete(store, update_key("lakeside", 1))
    train_site(sealed, 1, "lakeside")
    assert store.get(key) == before
    delete(store, key)
    update = train_site(sealed, 1, "lakeside")
    assert store.get(key) != before  # age is never the same twice
    assert get_payload(store, key, update.adapter_sha256, HUB)


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "damaged"])
def test_an_encrypted_candidate_that_the_store_lost_is_republished(sealed: Workspace, lost: bool) -> None:
    record = admit_updates(sealed, 1)
    gone = record.candidates[0]
    key = candidate_key(gone.id, 1)
    delete(sealed.store, key) if lost else sealed.store.put(key, b"damaged")
    assert admit_updates(sealed, 1) == record
    assert get_payload(sealed.store, key, gone.sha256, HUB, gone.n_bytes)
    with pytest.raises(IntegrityError):
        get_payload(sealed.store, key, "0" * 64, HUB)
