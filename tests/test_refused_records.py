"""A record that is refused is shown where people look: which hospital, which record, and why, in plain words."""

from __future__ import annotations

import io

import pytest
from federation_files import SITES, NewRun, finish_round, play_round, trained
from rich.console import Console

from flows.status import status_table
from tasks.keys import fingerprint, new_token, token_key
from tasks.ledger import put_record, ratings_key, roster_key, update_key, verdict_key
from tasks.registered import registered
from tasks.seal import NOTHING_SEEN, seal, split_seal
from tasks.standing import round_standing
from tasks.workspace import Workspace

SITE, OTHER = "lakeside", "st-anna"
STRANGER = token_key(new_token())


@pytest.fixture
def ws(start: NewRun) -> Workspace:
    return start()


def forge(ws: Workspace, key: str) -> None:
    """The same record, sealed by somebody who has the hospital's credentials of the store and not its key."""
    record = split_seal(ws.store.get(key), key).record
    ws.store.put(key, seal(STRANGER, key, NOTHING_SEEN, record))


def revoke_key(ws: Workspace, site: str) -> None:
    put_record(ws.store, roster_key(), registered(ws.store).without_identity(site, "revoked"))


def note(ws: Workspace, site: str = SITE) -> str:
    return next(s.note for s in round_standing(ws, 1).sites if s.site == site)


def steps(ws: Workspace, site: str = SITE) -> tuple[str, ...]:
    return next(s.steps for s in round_standing(ws, 1).sites if s.site == site)


def test_a_round_without_refusals_says_nothing_of_them(ws: Workspace) -> None:
    play_round(ws, 1)
    assert [note(ws, site) for site in SITES] == ["", "", ""]


def test_a_forged_update_is_told_before_anybody_has_admitted_it_and_afterwards(ws: Workspace) -> None:
    trained(ws)
    forge(ws, update_key(SITE, 1))
    told = note(ws)
    assert told.startswith("its update (update.json) refused: it is sealed by")
    assert fingerprint(STRANGER.public) in told and "nobody's that the hub knows" in told
    assert "uploaded" not in steps(ws) and note(ws, OTHER) == ""
    finish_round(ws, 1, raters=[site for site in SITES if site != SITE])
    assert note(ws).startswith("quarantined: ") and "nobody's that the hub knows" in note(ws)


def test_records_of_a_revoked_key_are_told(ws: Workspace) -> None:
    trained(ws)
    revoke_key(ws, SITE)
    assert note(ws) == f"its update (update.json) refused: the hub has revoked the key of '{SITE}'"


def test_what_was_sealed_by_a_key_that_was_replaced_is_told(ws: Workspace) -> None:
    trained(ws)
    roster = registered(ws.store)
    strange = roster.keys[OTHER][-1].identity
    put_record(ws.store, roster_key(), roster.with_identity(SITE, strange))
    assert note(ws).endswith(f"the key is one of '{SITE}' that the hub has replaced")


def test_what_was_put_in_place_of_ratings_that_were_heard_is_no_refusal(ws: Workspace) -> None:
    play_round(ws, 1)
    forge(ws, ratings_key(SITE, 1))
    assert note(ws) == "" and "rated" in steps(ws)


def test_forged_ratings_that_nobody_heard_are_told(ws: Workspace) -> None:
    trained(ws)
    others = [site for site in SITES if site != SITE]
    finish_round(ws, 1, raters=others)
    copied = ws.store.get(ratings_key(OTHER, 1))
    ws.store.put(ratings_key(SITE, 1), copied)
    ws.store.put(verdict_key(SITE, 1), b"{}")
    told = note(ws)
    assert "its ratings (ratings.json) refused: it is sealed by" in told and f"that of '{OTHER}'" in told
    assert "its verdict (verdict.json) refused: it carries no seal" in told
    assert not {"rated", "judged"} & set(steps(ws))


def test_a_key_that_is_offered_and_not_registered_is_told(ws: Workspace) -> None:
    trained(ws)
    refused = {SITE: "the key 1234 is not vouched for by the last invitation"}
    put_record(ws.store, roster_key(), registered(ws.store).model_copy(update={"refused": refused}))
    assert note(ws) == f"the key that it offers, refused: {refused[SITE]}"


def test_status_prints_it(ws: Workspace) -> None:
    trained(ws)
    forge(ws, update_key(SITE, 1))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(status_table(round_standing(ws, 1)))
    shown = " ".join(console.export_text().split())
    assert f"{SITE}: its update (update.json) refused: it is sealed by" in shown
