"""The store: whether it answers, takes what this machine must write, and refuses what it must not see."""

from __future__ import annotations

from collections.abc import Callable

from model.errors import ObjectMissingError, StoreDeniedError
from tasks.doctor.clock import SET_CLOCK
from tasks.doctor.endpoint import ask_store, shown
from tasks.doctor.finding import Finding, broken, named, well
from tasks.files import json_bytes
from tasks.homes import HUB, Home
from tasks.ledger import card_key, doctor_keys, federation_key, find_record, put_record, roster_key
from tasks.records import Record
from tasks.roster import read_roster
from tasks.workspace import Workspace

_NEW_INVITATION = "ask the hub for a new invitation: `cardiofed hub invite`"
_REASONS = {
    "RequestTimeTooSkewed": ("the store refuses signatures because this machine's clock is wrong", SET_CLOCK),
    "InvalidAccessKeyId": ("the store does not know these credentials", _NEW_INVITATION),
    "SignatureDoesNotMatch": ("the store refuses these credentials: the secret is wrong", _NEW_INVITATION),
}
_NOBODY = "nobody"  # stands for another site where there is none

Rights = dict[str, Callable[[], object]]


class Trace(Record):
    """What the check of rights leaves behind."""

    by: str


@named("S3")
def answers(ws: Workspace, home: Home) -> Finding:
    """The store answers an unsigned request, a refusal included; says in how many milliseconds."""
    answer = ask_store(home)
    if answer.status >= 500:
        said = f"{shown(home.s3_endpoint)} answers with HTTP {answer.status}"
        return broken(said, "tell the hub: its store, or the proxy before it, is ill")
    return well(f"{shown(home.s3_endpoint)} answers in {answer.took_ms:.0f} ms")


@named("own keys")
def own_keys(ws: Workspace, home: Home) -> Finding:
    """The machine may write, read and list what it must: a site its prefix, the hub everything."""
    rights = _hub_rights(ws) if home.name == HUB else _site_rights(ws, home.name)
    try:
        reasons = {name: reason for name, use in rights.items() if (reason := _refusal(use))}
    except ObjectMissingError:
        return broken(f"the store has no bucket '{home.s3_bucket}'", "correct s3_bucket in home.json")
    known = next((reason for reason in reasons.values() if reason in _REASONS), None)
    if known is not None:
        return broken(*_REASONS[known])
    if reasons:
        return broken(f"the store does not let it {', '.join(reasons)}", _NEW_INVITATION)
    return well(f"it may {', '.join(rights)}")


@named("foreign keys")
def foreign_keys(ws: Workspace, home: Home) -> Finding:
    """A site is refused what is not its own: writing to the hub's places and another site's, reading, listing.

    Whatever it could write stays there; it harms nothing, and the hub's or that site's own check replaces it.
    """
    other = _other_site(ws, home.name)
    allowed = [name for name, use in _forbidden(ws, home.name, other).items() if not _refusal(use)]
    if allowed:
        mend = f"tell the hub to set the policy anew: `cardiofed hub invite {home.name}`"
        return broken(f"the policy is too wide, this site may {', '.join(allowed)}", mend)
    return well("the store refuses other sites' and the hub's")


def _site_rights(ws: Workspace, site: str) -> Rights:
    (own,) = doctor_keys(site)
    return {
        "write its prefix": lambda: put_record(ws.store, own, Trace(by=site)),
        "read it": lambda: find_record(ws.store, own, Trace),
        "list it": lambda: ws.store.list(own),
        "read global/": lambda: ws.store.exists(roster_key()),
    }


def _hub_rights(ws: Workspace) -> Rights:
    hubs, shared = doctor_keys(None)

    def read_and_list() -> None:
        card = card_key(next(iter(read_roster(ws).sites), _NOBODY))
        ws.store.exists(card)
        ws.store.list(card)

    return {
        "write hub/": lambda: put_record(ws.store, hubs, Trace(by=HUB)),
        "write global/": lambda: put_record(ws.store, shared, Trace(by=HUB)),
        "list both": lambda: (ws.store.list(hubs), ws.store.list(federation_key())),
        "read and list sites/": read_and_list,
    }


def _forbidden(ws: Workspace, site: str, other: str) -> Rights:
    hubs, shared = doctor_keys(None)
    (others,) = doctor_keys(other)
    trace = json_bytes({"by": site})  # nobody believes it: it bears no seal
    return {
        "write global/": lambda: ws.store.put(shared, trace),
        "write hub/": lambda: ws.store.put(hubs, trace),
        "write another site's prefix": lambda: ws.store.put(others, trace),
        "read hub/": lambda: ws.store.knock(hubs),
        "read another site's prefix": lambda: ws.store.knock(card_key(other)),
        "list hub/": lambda: ws.store.list(hubs),
        "list another site's prefix": lambda: ws.store.list(card_key(other)),
        "list everything": lambda: ws.store.list(""),
    }


def _other_site(ws: Workspace, site: str) -> str:
    """The next on the list after this one, so that together the sites try every prefix."""
    others = read_roster(ws).sites
    after = [name for name in others if name > site] + [name for name in others if name < site]
    return after[0] if after else _NOBODY


def _refusal(use: Callable[[], object]) -> str:
    """The store's code for a refusal; empty when it allowed the use, whether anything was there or not."""
    try:
        use()
    except StoreDeniedError as error:
        return error.what.rpartition("(")[2].rstrip(")")
    return ""
