"""What fails a check is quarantined with its reason and stops nobody else; who is rated stays unknown."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from federation_files import SITES, delete, found, new_run, replace_update, trained, use_store
from hypothesis import given, settings
from hypothesis import strategies as st
from report_files import PARAMS, plan
from safetensors.torch import save

from infra.s3_server import S3Server
from model.errors import StoreDeniedError, StoreUnreachableError
from model.factors import Factors
from model.package import pack_adapter, unpack_adapter
from tasks.admit import REASON_LETTERS, admit_updates, assign_candidates, blind_ids
from tasks.files import sha256_bytes
from tasks.ledger import (
    adapter_key,
    candidate_key,
    candidates_key,
    get_record,
    merge_key,
    plan_key,
    put_record,
    update_key,
)
from tasks.merge import merge_updates
from tasks.rate import assigned_to, rate_candidates
from tasks.records import Architecture, Candidate, Candidates, Plan, Update
from tasks.store import Store
from tasks.workspace import Workspace

FAULTY, GOOD = "lakeside", ("hillcrest", "st-anna")
Change = Callable[[dict[str, Factors]], dict[str, Factors]]


@dataclass(frozen=True)
class Trained:
    """A round with all updates, and what the faulty site really sent."""

    ws: Workspace
    update: bytes
    adapter: bytes


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Trained]:
    env = s3_server.environment(bucket="admission")
    with pytest.MonkeyPatch.context() as patch:
        use_store(patch, env)
        ws = trained(found(new_run(tmp_path_factory, tmp_path_factory.mktemp("admission") / "run")))
        store = ws.store
        yield Trained(ws, store.get(update_key(FAULTY, 1)), store.get(adapter_key(FAULTY, 1)))


@pytest.fixture
def round_1(shared: Trained) -> Trained:
    """The round before admission, as the sites left it."""
    delete(shared.ws.store, candidates_key(1), merge_key(1))
    shared.ws.store.put(adapter_key(FAULTY, 1), shared.adapter)
    shared.ws.store.put(update_key(FAULTY, 1), shared.update)
    return shared


def announce(round_1: Trained, record: bytes) -> None:
    """What the faulty site announces, sealed by its own key: only what is inside is wrong."""
    key, store = update_key(FAULTY, 1), round_1.ws.store
    store.put(key, store.seals.sealed(key, record))


def refusal(ws: Workspace) -> str:
    """Why the faulty site is out, after making sure that nobody else is."""
    record = admit_updates(ws, 1)
    assert [c.site for c in record.quarantined] == [FAULTY]
    assert len(record.candidates) == len(GOOD)
    assert record.missing == ()
    assert get_record(ws.store, candidates_key(1), Candidates) == record
    return record.quarantined[0].reason


def test_good_updates_are_all_admitted(round_1: Trained) -> None:
    record = admit_updates(round_1.ws, 1)
    assert (len(record.candidates), record.quarantined, record.missing) == (3, (), ())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("round", 2),
        ("site", "hillcrest"),
        ("plan_sha256", "0" * 64),
        ("base_sha256", "0" * 64),
        ("model_sha256", "0" * 64),
        ("architecture", Architecture(channels=(4, 16))),
        ("labels", {"RV": 3, "MYO": 2, "LV": 1}),
        ("spacing_mm", 1.25),
        ("rank", 64),
    ],
)
def test_a_passport_of_something_else_is_quarantined_with_both_values(
    round_1: Trained, field: str, value: Any
) -> None:
    replace_update(round_1.ws, FAULTY, round_1.adapter, **{field: value})
    reason = refusal(round_1.ws)
    assert reason.startswith(f"{field} is ")
    assert ", the round has " in reason


@pytest.mark.parametrize("key", [adapter_key(FAULTY, 1), update_key(FAULTY, 1)])
def test_the_round_goes_on_without_what_is_quarantined(round_1: Trained, key: str) -> None:
    round_1.ws.store.put(key, b"{torn")
    assert refusal(round_1.ws)
    for site in GOOD:
        rate_candidates(round_1.ws, 1, site)
    assert {receipt.site for receipt in merge_updates(round_1.ws, 1).receipts} == set(GOOD)


def first_layer(change: Callable[[Factors], Factors]) -> Change:
    def changed(layers: dict[str, Factors]) -> dict[str, Factors]:
        name = next(iter(layers))
        return {**layers, name: change(layers[name])}

    return changed


def with_layer(layers: dict[str, Factors], name: str) -> dict[str, Factors]:
    B, A = next(iter(layers.values()))
    return {**layers, name: Factors(B.clone(), A.clone())}


def grow(factors: Factors) -> Factors:
    return Factors(factors.B.repeat(1, 9), factors.A.repeat(9, 1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (first_layer(lambda f: Factors(f.B * torch.nan, f.A)), "NaN or infinite"),
        (first_layer(lambda f: Factors(f.B, f.A * torch.inf)), "NaN or infinite"),
        (first_layer(lambda f: Factors(f.B[:-1], f.A)), "the base has"),
        (first_layer(lambda f: Factors(f.B, f.A[:, :-1])), "the base has"),
        (first_layer(grow), "this round allows"),
        (lambda layers: with_layer(layers, "back.door"), "unknown layers ['back.door']"),
        (lambda _: {}, "no layers"),
    ],
)
def test_factors_that_do_not_fit_the_base_are_quarantined(
    round_1: Trained, change: Change, reason: str
) -> None:
    layers = change(unpack_adapter(round_1.adapter))
    replace_update(round_1.ws, FAULTY, pack_adapter(layers, "fp32"))
    assert reason in refusal(round_1.ws)


@pytest.mark.parametrize("beyond", [0, 1])
def test_ranks_are_admitted_up_to_the_rounds_limit(round_1: Trained, beyond: int) -> None:
    limit = get_record(round_1.ws.store, plan_key(1), Plan).params.merge.rank_max
    layers = unpack_adapter(round_1.adapter)
    name, (B, A) = next(iter(layers.items()))
    more = limit + beyond - A.shape[0]
    padded = Factors(
        torch.cat([B, B.new_ones(B.shape[0], more)], 1), torch.cat([A, A.new_zeros(more, A.shape[1])])
    )
    replace_update(round_1.ws, FAULTY, pack_adapter({**layers, name: padded}, "fp32"))
    if beyond:
        assert refusal(round_1.ws) == f"rank {limit + 1}, this round allows {limit}"
    else:
        assert len(admit_updates(round_1.ws, 1).candidates) == len(SITES)


def test_an_update_of_some_layers_only_is_admitted(round_1: Trained) -> None:
    layers = unpack_adapter(round_1.adapter)
    name = next(iter(layers))
    replace_update(round_1.ws, FAULTY, pack_adapter({name: layers[name]}, "int8"))
    assert len(admit_updates(round_1.ws, 1).candidates) == len(SITES)


class Bomb:
    """What pickle would run on loading."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Bomb()),
        b"",
        b"\xff" * 100,
        save({"loose": torch.zeros(2)}),
        save({"x|A": torch.zeros(2, 2, dtype=torch.int64), "x|B": torch.zeros(2, 2, dtype=torch.int64)}),
    ],
    ids=["pickle", "empty", "noise", "loose tensor", "integers"],
)
def test_bytes_that_are_no_package_are_quarantined(round_1: Trained, data: bytes) -> None:
    replace_update(round_1.ws, FAULTY, data)
    assert refusal(round_1.ws)


def test_bytes_that_are_not_the_announced_ones_are_quarantined(round_1: Trained) -> None:
    flipped = bytearray(round_1.adapter)
    flipped[-1] ^= 1
    round_1.ws.store.put(adapter_key(FAULTY, 1), bytes(flipped))
    assert "its record announced" in refusal(round_1.ws)


def test_a_package_above_the_limit_is_quarantined_before_it_is_read(round_1: Trained) -> None:
    limit = round_1.ws.params.package.max_bytes
    replace_update(round_1.ws, FAULTY, bytes(limit + 1))
    received = round_1.ws.store.bytes_received
    assert f"{limit + 1} bytes, at most {limit}" in refusal(round_1.ws)
    assert round_1.ws.store.bytes_received - received < limit


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b"\x80\x04K\x01.", b'{"round": 1}', b"\xff\xfe", b"[" * 100_000],
    ids=["torn", "list", "pickle", "fields missing", "no text", "nested"],
)
def test_a_malformed_announcement_is_quarantined(round_1: Trained, data: bytes) -> None:
    announce(round_1, data)
    assert "Update" in refusal(round_1.ws)


def test_an_announcement_with_an_unknown_field_is_quarantined(round_1: Trained) -> None:
    record = round_1.ws.store.seals.opened(update_key(FAULTY, 1), round_1.update)
    announce(round_1, record.replace(b"{", b'{"patients": ["Doe, John"],', 1))
    assert "patients" in refusal(round_1.ws)


def test_an_announcement_that_was_altered_in_the_store_is_quarantined(round_1: Trained) -> None:
    store = round_1.ws.store
    store._client.put_object(  # what the program's own client would never send
        Bucket=store.bucket,
        Key=update_key(FAULTY, 1),
        Body=round_1.update,
        Metadata={"sha256": "0" * 64},
    )
    assert "the update cannot be read" in refusal(round_1.ws)


def test_an_announcement_without_its_adapter_is_quarantined(round_1: Trained) -> None:
    delete(round_1.ws.store, adapter_key(FAULTY, 1))
    assert "nothing there" in refusal(round_1.ws)


def test_a_reason_does_not_grow_with_what_was_sent(round_1: Trained) -> None:
    layers = unpack_adapter(round_1.adapter)
    replace_update(round_1.ws, FAULTY, pack_adapter(with_layer(layers, "x" * 100_000), "fp32"))
    assert len(refusal(round_1.ws)) <= REASON_LETTERS


@pytest.mark.parametrize("fault", [StoreUnreachableError, StoreDeniedError])
def test_a_store_that_fails_is_no_fault_of_the_update(
    round_1: Trained, fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    get = Store.get

    def failing(self: Store, key: str, *limits: Any, **named: Any) -> bytes:
        if key == adapter_key(FAULTY, 1):
            raise fault("the link broke", key)
        return get(self, key, *limits, **named)

    monkeypatch.setattr(Store, "get", failing)
    with pytest.raises(fault):
        admit_updates(round_1.ws, 1)
    monkeypatch.undo()
    assert admit_updates(round_1.ws, 1).quarantined == ()


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "damaged"])
def test_a_candidate_that_the_store_lost_is_republished(round_1: Trained, lost: bool) -> None:
    store = round_1.ws.store
    record = admit_updates(round_1.ws, 1)
    keys = [candidate_key(candidate.id, 1) for candidate in record.candidates]
    before = {key: store.get(key) for key in keys}
    delete(store, keys[0]) if lost else store.put(keys[0], b"damaged")
    assert admit_updates(round_1.ws, 1) == record
    assert {key: store.get(key) for key in keys} == before


def test_candidates_do_not_tell_whose_they_are(round_1: Trained) -> None:
    record = admit_updates(round_1.ws, 1)
    text = round_1.ws.store.get(candidates_key(1)).decode()
    assert not any(site in text for site in SITES)
    ids = [candidate.id for candidate in record.candidates]
    assert ids == sorted(ids)
    hashes = {
        site: get_record(round_1.ws.store, update_key(site, 1), Update).adapter_sha256 for site in SITES
    }
    assert set(blind_ids(record.plan_sha256, hashes).values()) & set(ids) == set()


def candidates(*sha256s: str) -> tuple[Candidate, ...]:
    """Admitted updates named a, b, c and so on."""
    return tuple(Candidate(id=chr(97 + i), sha256=sha, n_bytes=1) for i, sha in enumerate(sha256s))


def assign(
    admitted: tuple[Candidate, ...], raters: int, plan_sha256: str = "1", nonce: str = ""
) -> dict[str, tuple[str, ...]]:
    rating = PARAMS.rating.model_copy(update={"raters": raters})
    opened = plan(1, {}).model_copy(update={"params": PARAMS.model_copy(update={"rating": rating})})
    return assign_candidates(opened, plan_sha256, admitted, nonce)


@pytest.mark.parametrize(
    ("sites", "raters", "each"), [(1, 6, 0), (2, 6, 1), (5, 6, 4), (9, 6, 6), (20, 3, 3)]
)
def test_every_update_has_as_many_raters_as_every_other_and_never_its_sender(
    sites: int, raters: int, each: int
) -> None:
    assigned = assign(candidates(*map(str, range(sites))), raters)
    assert all(rater not in rated and len(rated) == each for rater, rated in assigned.items())
    asked = [blind for rated in assigned.values() for blind in rated]
    assert all(asked.count(blind) == each for blind in assigned)


def test_who_rates_whom_follows_from_plan_list_and_the_hubs_nonce_alone() -> None:
    admitted = candidates(*map(str, range(12)))
    assert assign(admitted, 2) == assign(tuple(reversed(admitted)), 2)
    assert assign(admitted, 2) != assign(admitted, 2, plan_sha256="2")
    assert assign(admitted, 2) != assign(admitted, 2, nonce="n")


def test_who_announces_anothers_bytes_after_admission_takes_nothing_over(round_1: Trained) -> None:
    ws = round_1.ws
    before = admit_updates(ws, 1)
    rated = {site: rate_candidates(ws, 1, site) for site in (FAULTY, *GOOD)}
    own, other = (get_record(ws.store, update_key(site, 1), Update) for site in (FAULTY, "st-anna"))
    stolen = own.model_copy(update={"adapter_sha256": other.adapter_sha256})
    put_record(ws.store, update_key(own.site, 1), stolen)
    assert admit_updates(ws, 1) == before
    receipts = {r.site: r for r in merge_updates(ws, 1).receipts}
    assert set(receipts) == set(rated)
    assert receipts[other.site].adapter_bytes == other.adapter_bytes
    assert {len(r.seen) for r in receipts.values()} == {2}


def test_senders_of_the_same_bytes_do_not_rate_each_other() -> None:
    assigned = assign(candidates("x", "x", "y"), 6)
    assert {rater: set(rated) for rater, rated in assigned.items()} == {
        "a": {"c"},
        "b": {"c"},
        "c": {"a", "b"},
    }


def test_a_site_that_copies_another_rates_what_it_is_assigned_and_not_the_copy(round_1: Trained) -> None:
    ws = round_1.ws
    replace_update(ws, FAULTY, ws.store.get(adapter_key("hillcrest", 1)))
    record = admit_updates(ws, 1)
    twins = {
        c.id for c in record.candidates if c.sha256 == sha256_bytes(ws.store.get(adapter_key("hillcrest", 1)))
    }
    assert len(twins) == 2
    assert {c.id for c in assigned_to(ws, record, FAULTY)} == {c.id for c in record.candidates} - twins
    assert {c.id for c in assigned_to(ws, record, "st-anna")} == twins


sha256s = st.text("0123456789abcdef", min_size=64, max_size=64)


@settings(max_examples=30, deadline=None)
@given(plan=sha256s, payloads=st.lists(sha256s, min_size=1, max_size=6), data=st.data())
def test_blind_ids_are_distinct_and_do_not_depend_on_names(
    plan: str, payloads: list[str], data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.text(min_size=1), min_size=6, max_size=6, unique=True))
    one = blind_ids(plan, {f"site-{i}": sha256 for i, sha256 in enumerate(payloads)})
    other = blind_ids(plan, dict(zip(names, payloads, strict=False)))
    assert sorted(one.values()) == sorted(other.values())
    assert len(set(one.values())) == len(payloads)
