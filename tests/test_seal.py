"""A seal vouches for exactly one record at exactly one place; all else is refused before it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import KeyFileError, PackageError, SignatureError, TrustError
from tasks import ledger
from tasks.answers import find_answer
from tasks.contact import Contact
from tasks.keys import new_token, token_key
from tasks.ledger import contact_key, current_key, get_record, put_record, roster_key
from tasks.records import Current
from tasks.registered import Roster, SiteKey
from tasks.seal import NOTHING_SEEN, SEAL_BYTES, NoSeals, open_seal, seal, split_seal
from tasks.store import Store
from tasks.trust import Trust, have_all_identities, pin_hub, pinned_hub, with_seals

KEY, OTHER = token_key(new_token()), token_key(new_token())
PLACE = "sites/st-anna/rounds/0007/update.json"
SEEN = f"123456789012:{'0123456789abcdef' * 4}"
RECORD = b'{"round":7}\n'
SEALED = seal(KEY, PLACE, SEEN, RECORD)
SITES = ("lakeside", "st-anna")


def contact(site: str, number: int = 1) -> Contact:
    return Contact(
        round=number, site=site, phase="train", every_s=0, trainings=0, sent_bytes=0, received_bytes=0
    )


@pytest.fixture
def run(store: Store, tmp_path: Path) -> Store:
    """The store of a run that plays hub and two hospitals."""
    known = have_all_identities(tmp_path, SITES)
    with_seals(store, tmp_path)
    keys = {site: (SiteKey(identity=known[site], state="valid"),) for site in SITES}
    put_record(store, roster_key(), Roster(sites=SITES, keys=keys))
    return store


def test_a_sealed_record_is_read_back_to_the_byte() -> None:
    assert open_seal(SEALED, PLACE, KEY.public) == RECORD
    assert (split_seal(SEALED, PLACE).position, split_seal(SEALED, PLACE).key) == (SEEN, KEY.public)
    assert len(SEALED) - len(RECORD) <= SEAL_BYTES


@settings(max_examples=300)
@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_one_flipped_byte_anywhere_is_refused(where: int, flip: int) -> None:
    spoilt = bytearray(SEALED)
    spoilt[where] ^= flip
    with pytest.raises(SignatureError):
        open_seal(bytes(spoilt), PLACE, KEY.public)


@given(st.binary(max_size=400))
def test_bytes_of_a_stranger_are_refused(data: bytes) -> None:
    with pytest.raises(SignatureError):
        open_seal(data, PLACE, KEY.public)


@pytest.mark.parametrize(
    "place",
    [
        "sites/st-anna/rounds/0008/update.json",
        "sites/lakeside/rounds/0007/update.json",
        "sites/st-anna/rounds/0007/ratings.json",
    ],
)
def test_bytes_that_are_replayed_at_another_place_are_refused(place: str) -> None:
    with pytest.raises(SignatureError):
        open_seal(SEALED, place, KEY.public)


def test_another_key_is_refused_though_its_signature_is_good() -> None:
    with pytest.raises(SignatureError, match="was expected"):
        open_seal(SEALED, PLACE, OTHER.public)
    dressed = SEALED.replace(KEY.public.encode(), OTHER.public.encode())
    with pytest.raises(SignatureError):
        open_seal(dressed, PLACE, OTHER.public)


def test_the_seal_is_checked_before_anything_is_parsed(run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        pytest.fail("a record without a valid seal was parsed")

    run.put(current_key(), b'{"round": 1, "version": 1}')
    monkeypatch.setattr(ledger, "parse_record", never)
    with pytest.raises(SignatureError, match="carries no seal"):
        get_record(run, current_key(), Current)


def test_the_size_is_checked_before_the_seal(run: Store) -> None:
    run.put(current_key(), bytes(2000))
    with pytest.raises(PackageError, match="bytes"):
        get_record(run, current_key(), Current, max_bytes=1000)


def test_a_hospitals_record_that_another_wrote_counts_as_none(run: Store) -> None:
    mine, theirs = (contact_key(site, 1) for site in SITES)
    for site in SITES:
        put_record(run, contact_key(site, 1), contact(site))
    assert find_answer(run, mine, Contact) == contact("lakeside")
    run.put(mine, run.get(theirs))
    assert find_answer(run, mine, Contact) is None


def test_a_revoked_key_seals_nothing_any_more(run: Store) -> None:
    put_record(run, contact_key("lakeside", 1), contact("lakeside"))
    roster = get_record(run, roster_key(), Roster)
    put_record(run, roster_key(), roster.without_identity("lakeside", "revoked"))
    with pytest.raises(SignatureError, match="has revoked the key of 'lakeside'"):
        get_record(run, contact_key("lakeside", 1), Contact)


def test_a_key_that_nobody_registered_is_refused(run: Store) -> None:
    put_record(run, roster_key(), Roster(sites=SITES))
    put_record(run, contact_key("lakeside", 1), contact("lakeside"))
    with pytest.raises(SignatureError, match="has registered no key of 'lakeside'"):
        get_record(run, contact_key("lakeside", 1), Contact)


def test_a_hospital_believes_the_hub_that_it_has_pinned_and_no_other(
    run: Store, tmp_path: Path, store: Store
) -> None:
    known = have_all_identities(tmp_path, SITES)
    put_record(run, current_key(), Current(round=1))
    folder = (tmp_path / "keys" / "lakeside").rename(tmp_path / "hospital")
    pin_hub(folder, known["hub"])
    site = Trust(folder, store)
    assert site.opened(current_key(), run.get(current_key()))
    stranger = seal(OTHER, current_key(), NOTHING_SEEN, b"{}")
    with pytest.raises(SignatureError, match="was expected"):
        site.opened(current_key(), stranger)
    with pytest.raises(KeyFileError, match="cannot speak for the hub"):
        site.sealed(current_key(), b"{}")
    with pytest.raises(TrustError, match="this folder knows the hub as"):
        pin_hub(folder, known["st-anna"])
    assert pinned_hub(folder) == known["hub"]


def test_a_store_without_keys_neither_writes_nor_believes_a_record(run: Store) -> None:
    put_record(run, current_key(), Current(round=1))
    run.seals = NoSeals()
    for work in (
        lambda: put_record(run, current_key(), Current(round=2)),
        lambda: get_record(run, current_key(), Current),
    ):
        with pytest.raises(TrustError, match="no keys"):
            work()


def test_the_writers_position_stands_in_the_seal(run: Store) -> None:
    run.seals.saw(123456789012, "0123456789abcdef" * 4)
    put_record(run, current_key(), Current(round=1))
    assert split_seal(run.get(current_key()), current_key()).position == SEEN
    assert get_record(run, current_key(), Current).round == 1


def test_no_hospital_is_called_hub(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="cannot be called 'hub'"):
        have_all_identities(tmp_path, ("hub",))
