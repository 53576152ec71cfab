"""Whose adapter a rater rates follows from no name, no size, no order and no time, and from nothing that is public."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from federation_files import SITES, NewRun, delete, replace_update, trained
from hypothesis import given
from hypothesis import strategies as st
from report_files import PARAMS, plan

from model.errors import IntegrityError, PackageError
from model.package import pack_adapter, unpack_adapter
from model.padding import STEP_BYTES, common_length, pad, unpad
from tasks.admit import admit_updates, assign_candidates, blind_ids
from tasks.files import sha256_bytes
from tasks.ledger import (
    adapter_key,
    candidate_key,
    candidates_key,
    get_record,
    plan_key,
    senders_key,
    update_key,
)
from tasks.payloads import get_payload
from tasks.rate import assigned_to
from tasks.records import Candidate, Plan, Senders, Update
from tasks.trust import HUB
from tasks.workspace import Workspace

N_SITES, DRAWS = 8, 400


@pytest.fixture
def ws(start: NewRun) -> Workspace:
    """A round with three updates of different sizes."""
    made = trained(start())
    layers = unpack_adapter(made.store.get(adapter_key("lakeside", 1)))
    replace_update(made, "lakeside", pack_adapter(layers, "fp32"))
    return made


def read(ws: Workspace, candidate: Candidate) -> bytes:
    key = candidate_key(candidate.id, 1)
    return get_payload(ws.store, key, candidate.sha256, HUB, candidate.n_bytes)


@given(st.binary(max_size=300), st.integers(0, 3))
def test_what_was_padded_comes_back_and_has_a_common_length(data: bytes, more: int) -> None:
    length = common_length([len(data)]) + more * STEP_BYTES
    assert length % STEP_BYTES == 0
    assert len(pad(data, length)) == length
    assert unpad(pad(data, length)) == data


@pytest.mark.parametrize(
    "broken",
    [b"", b"short", b"x" * 64, pad(b"data", 64)[:-1], b"data" + b"y" + pad(b"data", 64)[5:]],
    ids=["empty", "short", "noise", "cut", "no zeros"],
)
def test_a_padding_that_is_not_understood_is_refused(broken: bytes) -> None:
    with pytest.raises(PackageError, match="padding"):
        unpad(broken)


def test_all_candidates_have_one_size_though_their_packages_differ(ws: Workspace) -> None:
    sizes = {len(ws.store.get(adapter_key(site, 1))) for site in SITES}
    assert len(sizes) > 1  # without padding a size would tell
    record = admit_updates(ws, 1)
    (shown,) = {candidate.n_bytes for candidate in record.candidates}
    stored = {info.size for info in ws.store.list("global/rounds/0001/candidates/")}
    assert stored == {shown}
    assert shown % STEP_BYTES == 0


def test_a_padded_candidate_is_the_package_that_was_sent(ws: Workspace) -> None:
    record = admit_updates(ws, 1)
    sent = {ws.store.get(adapter_key(site, 1)) for site in SITES}
    assert {read(ws, candidate) for candidate in record.candidates} == sent


def test_a_candidate_that_is_another_package_is_refused(ws: Workspace) -> None:
    one, other, _ = admit_updates(ws, 1).candidates
    ws.store.put(candidate_key(one.id, 1), ws.store.get(candidate_key(other.id, 1)))
    with pytest.raises(IntegrityError, match="its record announced"):
        read(ws, one)


def test_no_blind_id_can_be_made_from_what_a_rater_may_know(ws: Workspace) -> None:
    """Names of sites, the plan, hashes of packages and of objects, alone and in pairs, in any order."""
    record = admit_updates(ws, 1)
    ids = {candidate.id for candidate in record.candidates}
    opened = get_record(ws.store, plan_key(1), Plan)
    facts = [*SITES, record.plan_sha256, record.nonce, opened.base.sha256, opened.model_sha256, "1", "0"]
    facts += [candidate.sha256 for candidate in record.candidates]
    facts += [str(ws.store.sha256_of(candidate_key(blind, 1))) for blind in ids]
    for count in (1, 2, 3):
        for chosen in itertools.permutations(facts, count):
            for joint in ("", "/", ":"):
                guess = sha256_bytes(joint.join(chosen).encode())
                assert guess[:16] not in ids and guess[-16:] not in ids
    twins = blind_ids(record.plan_sha256, dict(zip(SITES, facts[-3:], strict=True)))
    assert not ids & set(twins.values())


def test_the_hub_makes_the_same_ids_again_and_another_round_others(ws: Workspace) -> None:
    record = admit_updates(ws, 1)
    before = {info.key for info in ws.store.list("")}
    delete(ws.store, candidates_key(1))  # as after a kill just before the last write
    again = admit_updates(ws, 1)
    assert {c.id for c in again.candidates} == {c.id for c in record.candidates}
    assert {info.key for info in ws.store.list("")} == before
    delete(ws.store, candidates_key(1), senders_key(1))
    assert not {c.id for c in admit_updates(ws, 1).candidates} & {c.id for c in record.candidates}


def test_the_map_lies_where_no_site_reads_and_nowhere_else(ws: Workspace) -> None:
    record = admit_updates(ws, 1)
    secret = get_record(ws.store, senders_key(1), Senders).secret
    hidden = [secret, *(candidate.id for candidate in record.candidates)]
    for info in ws.store.list(""):
        if info.key.startswith("hub/"):
            continue
        text = ws.store.get(info.key)
        assert secret.encode() not in text
        if info.key.startswith("sites/"):
            assert not any(name.encode() in text for name in hidden)
        elif any(name.encode() in text for name in hidden):
            assert not any(site.encode() in text for site in SITES)


def test_candidates_are_written_in_the_order_of_their_ids(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    put = type(ws.store).put

    def noted(self: object, key: str, *args: object, **named: object) -> str:
        written.append(key)
        return put(self, key, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(type(ws.store), "put", noted)
    admit_updates(ws, 1)
    keys = [key for key in written if "/candidates/" in key]
    assert len(keys) == len(SITES)
    assert keys == sorted(keys)


def test_a_site_rates_in_the_order_of_its_row(ws: Workspace) -> None:
    record = admit_updates(ws, 1)
    ids = {candidate.sha256: candidate.id for candidate in record.candidates}
    for site in SITES:
        own = ids[get_record(ws.store, update_key(site, 1), Update).adapter_sha256]
        assert tuple(c.id for c in assigned_to(ws, record, site)) == record.assigned[own]


def drawn(nonce: str) -> dict[str, tuple[str, ...]]:
    admitted = tuple(Candidate(id=chr(97 + i), sha256=str(i), n_bytes=1) for i in range(N_SITES))
    rating = PARAMS.rating.model_copy(update={"raters": N_SITES - 1})
    opened = plan(1, {}).model_copy(update={"params": PARAMS.model_copy(update={"rating": rating})})
    return assign_candidates(opened, "1", admitted, nonce)


def test_every_rater_has_an_order_of_its_own_and_each_candidate_stands_anywhere_in_it() -> None:
    """Of 7 candidates each stands at each place in a seventh of 400 draws: 57 ± 7; and rows agree by chance only."""
    places: Counter[tuple[str, int]] = Counter()
    same = 0
    for draw in range(DRAWS):
        rows = drawn(str(draw))
        places.update((blind, k) for k, blind in enumerate(rows["a"]))
        common = [blind for blind in rows["a"] if blind in rows["b"]]
        same += common == [blind for blind in rows["b"] if blind in common]
    expected = DRAWS / (N_SITES - 1)
    assert len(places) == (N_SITES - 1) ** 2
    chi_squared = sum((n - expected) ** 2 / expected for n in places.values())
    assert chi_squared < 74  # 36 degrees of freedom, p = 0.0002
    assert same <= 6  # two orders of six agree once in 720
