"""The machine's keys: only their owner may use them, the hub knows them, and both sides mean the same hub."""

from __future__ import annotations

from pathlib import Path

from tasks.doctor.finding import Finding, broken, doubtful, named, well
from tasks.homes import HUB, Home
from tasks.identity import described, read_identity
from tasks.keys import fingerprint
from tasks.registered import registered
from tasks.trust import pinned_hub
from tasks.workspace import Workspace

_NEW_INVITATION = "ask the hub for a new invitation: `cardiofed hub rotate`"


@named("identity")
def own_identity(folder: Path, home: Home) -> Finding:
    """Both keys can be read by their owner alone; a hospital has pinned its hub's key."""
    identity = read_identity(folder)
    if home.name != HUB and pinned_hub(folder) is None:
        return broken("the hub's key is not known here", "join again with a new invitation")
    return well(f"the keys are {described(identity.public)}")


@named("registration")
def site_registration(ws: Workspace, home: Home) -> Finding:
    """The hub's list is sealed by the hub that this hospital has pinned, and names this hospital's keys."""
    roster, own = registered(ws.store), read_identity(ws.root).public
    state = roster.state(home.name, own)
    if state == "valid":
        return well("the hub has registered the keys of this machine")
    if state is not None:
        return broken(f"the hub has ended the key {fingerprint(own.sign)}: {state}", _NEW_INVITATION)
    if home.name in roster.refused:
        return broken(f"the hub did not register the keys: {roster.refused[home.name]}", _NEW_INVITATION)
    return doubtful("the hub has not registered the keys yet", "nothing: its next round does")


@named("registration")
def hub_registration(ws: Workspace, home: Home) -> Finding:
    """Every invited hospital has a registered key; says whose offer was refused, and why."""
    roster = registered(ws.store)
    if roster.refused:
        said = "; ".join(f"{site}: {reason}" for site, reason in sorted(roster.refused.items()))
        return doubtful(f"refused keys: {said}", "ask these hospitals whether it was they who joined")
    without = [site for site in roster.sites if roster.identity(site) is None]
    if without:
        return well(f"{len(roster.sites)} invited, not yet registered: {', '.join(without)}")
    return well(f"the keys of {len(roster.sites)} hospitals are registered")
