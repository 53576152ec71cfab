"""Who said what: forged, replayed and tampered records, a false hub, a key that was revoked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import ATTACKER, OTHERS, Round
from federation_files import delete

from model.errors import SignatureError
from tasks import admit, trust
from tasks.answers import find_answer
from tasks.keys import new_token, token_key
from tasks.ledger import (
    candidates_key,
    current_key,
    get_record,
    plan_key,
    put_record,
    ratings_key,
    roster_key,
    update_key,
)
from tasks.merge import _admitted
from tasks.records import Candidates, Current, Plan, Ratings
from tasks.registered import Roster, registered
from tasks.seal import NOTHING_SEEN, seal, split_seal
from tasks.workspace import Workspace

STRANGER = token_key(new_token())
THEIRS = update_key(ATTACKER, 1)


def unchecked(data: bytes, place: str, _expected: str) -> bytes:
    """What a reader does that looks at no seal."""
    return data[data.index(b"{") :]


def forged(key: str, record: bytes) -> bytes:
    """Sealed for the right place, by the wrong key."""
    return seal(STRANGER, key, NOTHING_SEEN, record)


def test_forged_update(round_1: Round, off: pytest.MonkeyPatch) -> None:
    record = split_seal(round_1.update, THEIRS).record.replace(b'"seconds":', b'"seconds":9')
    for bytes_ in (record, forged(THEIRS, record)):
        round_1.renew()
        round_1.ws.store.put(THEIRS, bytes_)
        off.setattr(trust, "open_seal", unchecked)
        assert round_1.admit()[1] == ""
        off.undo()
        delete(round_1.ws.store, candidates_key(1))
        assert "seal" in round_1.admit()[1]


def test_replayed_update_of_another_site(round_1: Round, off: pytest.MonkeyPatch) -> None:
    store = round_1.ws.store
    store.put(THEIRS, store.get(update_key(OTHERS[0], 1)))

    def reason(*defences_off: str) -> str:
        delete(store, candidates_key(1))
        if "seal" in defences_off:
            off.setattr(trust, "open_seal", unchecked)
        if "passport" in defences_off:
            off.setattr(admit, "check_passport", lambda *_: None)
        said = round_1.admit()[1]
        off.undo()
        return said

    assert "site is hillcrest" in reason("seal")
    assert "is sealed by" in reason("passport")
    assert "is sealed by" in reason()


def test_tampered_rating(round_1: Round, off: pytest.MonkeyPatch) -> None:
    store, key = round_1.ws.store, ratings_key(OTHERS[0], 1)
    honest = Ratings(round=1, site=OTHERS[0], candidates_sha256="0" * 64, baseline_dice=0.75, scores={})
    put_record(store, key, honest)
    store.put(key, store.get(key).replace(b"0.75", b"0.25"))
    off.setattr(trust, "open_seal", unchecked)
    believed = find_answer(store, key, Ratings)
    assert believed is not None and believed.baseline_dice == 0.25
    off.undo()
    assert find_answer(store, key, Ratings) is None
    delete(store, key)


def test_false_hub(round_1: Round, off: pytest.MonkeyPatch) -> None:
    store = round_1.ws.store
    before = store.get(current_key())
    store.put(current_key(), forged(current_key(), b'{"round":9,"version":1}'))
    off.setattr(trust, "open_seal", unchecked)
    assert get_record(store, current_key(), Current).round == 9
    off.undo()
    with pytest.raises(SignatureError, match="was expected"):
        get_record(store, current_key(), Current)
    store.put(current_key(), before)


@pytest.fixture
def revocable(round_1: Round) -> Iterator[Workspace]:
    before = round_1.ws.store.get(roster_key())
    yield round_1.ws
    round_1.ws.store.put(roster_key(), before)
    put_record(round_1.ws.store, roster_key(), registered(round_1.ws.store))  # forgets what was read


def test_revoked_key(round_1: Round, revocable: Workspace, off: pytest.MonkeyPatch) -> None:
    store = revocable.store
    assert round_1.admit()[1] == ""
    plan, candidates = get_record(store, plan_key(1), Plan), get_record(store, candidates_key(1), Candidates)
    assert set(_admitted(revocable, plan, candidates)) == {ATTACKER, *OTHERS}
    put_record(store, roster_key(), registered(store).without_identity(ATTACKER, "revoked"))
    off.setattr(Roster, "identity", lambda roster, site: roster.keys[site][-1].identity)  # whatever its state
    assert set(_admitted(revocable, plan, candidates)) == {ATTACKER, *OTHERS}
    off.undo()
    assert set(_admitted(revocable, plan, candidates)) == set(OTHERS)
    delete(store, candidates_key(1))
    assert "the hub has revoked the key" in round_1.admit()[1]
