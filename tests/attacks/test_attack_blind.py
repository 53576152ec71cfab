"""A rater tries to learn whose adapter it rates: by the names of candidates, by their sizes, by their order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from conftest import ATTACKER, Round
from federation_files import SITES, delete, replace_update

from model.package import pack_adapter, unpack_adapter
from tasks import admit, payloads
from tasks.admit import admit_updates
from tasks.ledger import candidate_key, candidates_key, get_record, senders_key
from tasks.records import Candidates, Senders
from tasks.workspace import Workspace

DRAWS = 12


def admitted(ws: Workspace) -> tuple[Candidates, dict[str, str]]:
    """What every rater sees, and the truth that the hub keeps: candidate → site."""
    delete(ws.store, candidates_key(1), senders_key(1))
    record = admit_updates(ws, 1)
    return record, {
        blind: u.site for blind, u in get_record(ws.store, senders_key(1), Senders).updates.items()
    }


def named(record: Candidates, plan_sha256: str) -> dict[str, str]:
    """The names that a rater would make of what is public."""
    return {hashlib.sha256(f"{plan_sha256}/{site}".encode()).hexdigest()[:16]: site for site in SITES}


def of_public_facts(_secret: str, sites: dict[str, str], plan_sha256: str) -> dict[str, str]:
    return {site: hashlib.sha256(f"{plan_sha256}/{site}".encode()).hexdigest()[:16] for site in sites}


def test_rater_learns_from_names(round_1: Round, off: pytest.MonkeyPatch) -> None:
    ws = round_1.ws
    plan_sha256 = admitted(ws)[0].plan_sha256
    off.setattr(admit, "blind_ids", lambda secret, sites: of_public_facts(secret, sites, plan_sha256))
    record, truth = admitted(ws)
    assert named(record, plan_sha256) == truth
    off.undo()
    record, truth = admitted(ws)
    assert not named(record, plan_sha256).keys() & truth.keys()


def test_rater_learns_from_sizes(round_1: Round, off: pytest.MonkeyPatch) -> None:
    """Everybody knows from the plan who trains with the highest rank, or on what: its package is the longest."""
    ws = round_1.ws
    longer = pack_adapter(unpack_adapter(round_1.adapter), "fp32")
    replace_update(ws, ATTACKER, longer)

    def longest(record: Candidates) -> list[str]:
        size = {c.id: len(ws.store.get(candidate_key(c.id, 1))) for c in record.candidates}
        return [blind for blind, n in size.items() if n == max(size.values())]

    off.setattr(payloads, "pad", lambda data, _: data)
    record, truth = admitted(ws)
    assert [truth[blind] for blind in longest(record)] == [ATTACKER]
    off.undo()
    record, truth = admitted(ws)
    assert len(longest(record)) == len({c.n_bytes for c in record.candidates}) * len(SITES) == len(SITES)


def test_rater_learns_from_order(round_1: Round, off: pytest.MonkeyPatch) -> None:
    """The hub goes through the hospitals in the order of the plan; what it publishes must not."""

    def read_off(ws: Workspace) -> bool:
        record, truth = admitted(ws)
        return [truth[c.id] for c in record.candidates] == list(SITES)

    publish: Callable[..., Any] = admit._Envelope.publish

    def as_they_come(envelope: Any, packages: Any) -> Any:
        return tuple(sorted(publish(envelope, packages), key=lambda c: envelope.senders.updates[c.id].site))

    off.setattr(admit._Envelope, "publish", as_they_come)
    assert all(read_off(round_1.ws) for _ in range(2))
    off.undo()
    assert not all(read_off(round_1.ws) for _ in range(DRAWS))
