"""What a hospital sent is sent again, to a later round or in another's name: seal and passport each refuse it."""

from __future__ import annotations

import pytest
from conftest import ATTACKER, OTHERS, Round
from federation_files import SITES, delete, found, new_run, play_round, trained, use_store

from infra.s3_server import S3Server
from tasks.admit import admit_updates
from tasks.ledger import (
    adapter_key,
    candidates_key,
    get_record,
    senders_key,
    update_key,
)
from tasks.records import Senders
from tasks.seal import split_seal
from tasks.workspace import Workspace

VICTIM = ATTACKER
SEAL, PASSPORT = "tasks.trust.open_seal", "tasks.admit.check_passport"


def by_anybody(data: bytes, place: str, _expected: str) -> bytes:
    """Take the record out of its seal, whoever made that."""
    return split_seal(data, place).record


def test_update_for_another_site(round_1: Round, off: pytest.MonkeyPatch) -> None:
    """One hospital's update speaks for another as well, and so counts twice."""
    store, twin = round_1.ws.store, OTHERS[0]

    def copy() -> None:
        store.put(adapter_key(VICTIM, 1), store.get(adapter_key(twin, 1)))
        store.put(update_key(VICTIM, 1), store.get(update_key(twin, 1)))

    copy()
    off.setattr(SEAL, by_anybody)
    off.setattr(PASSPORT, lambda *_: None)
    assert sum(p == store.get(adapter_key(twin, 1)) for p in round_1.admit()[0]) == 2
    off.undo()
    for defence in (SEAL, PASSPORT):  # either is enough
        off.setattr(defence, by_anybody if defence == SEAL else lambda *_: None)
        round_1.renew()
        copy()
        assert len(round_1.admit()[0]) == len(OTHERS)
        off.undo()


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Workspace:
    """A round that has closed, and one that waits for the victim alone."""
    with pytest.MonkeyPatch.context() as patch:
        use_store(patch, s3_server.environment(bucket="attack-records"))
        ws = found(new_run(tmp_path_factory, tmp_path_factory.mktemp("attack-records") / "run"))
        assert ws.store.bucket == "attack-records"
        play_round(ws, 1)
        return trained(ws, 2, OTHERS)


def test_replayed_update(second: Workspace, off: pytest.MonkeyPatch) -> None:
    """What the victim sent to one round is put into the next."""
    store = second.store
    store.put(adapter_key(VICTIM, 2), store.get(adapter_key(VICTIM, 1)))
    store.put(update_key(VICTIM, 2), store.get(update_key(VICTIM, 1)))

    def voices() -> set[str]:
        delete(store, candidates_key(2), senders_key(2))
        admit_updates(second, 2)
        return {update.site for update in get_record(store, senders_key(2), Senders).updates.values()}

    off.setattr(SEAL, by_anybody)
    off.setattr(PASSPORT, lambda *_: None)
    assert voices() == set(SITES)
    off.undo()
    for defence in (SEAL, PASSPORT):  # either is enough
        off.setattr(defence, by_anybody if defence == SEAL else lambda *_: None)
        assert voices() == set(OTHERS)
        off.undo()
