"""The software here against the hub's."""

from __future__ import annotations

from tasks.doctor.finding import Finding, broken, doubtful, named, well
from tasks.homes import HUB, Home
from tasks.ledger import find_record, versions_key
from tasks.versions_in_use import Versions, versions_here
from tasks.workspace import Workspace


@named("versions")
def same_versions(ws: Workspace, home: Home) -> Finding:
    """Another minor version of cardiofed than the hub's is failed, any other difference a warning."""
    here = versions_here()
    if home.name == HUB:
        return well(_listed(here, here.names()))
    hub = find_record(ws.store, versions_key(), Versions)
    if hub is None:
        return well(f"{_listed(here, here.names())}; the hub has told none yet")
    differing = [name for name in here.names() if getattr(here, name) != getattr(hub, name)]
    if not differing:
        return well(f"{_listed(here, here.names())}, as at the hub")
    said = f"here {_listed(here, differing)}, at the hub {_listed(hub, differing)}"
    if here.cardiofed.split(".")[:2] != hub.cardiofed.split(".")[:2]:
        return broken(said, f"install cardiofed {hub.cardiofed}, or wait for the hub to upgrade")
    return doubtful(said, "install what the hub runs (constraints.txt of its release)")


def _listed(versions: Versions, names: list[str]) -> str:
    return ", ".join(f"{name} {getattr(versions, name)}" for name in names)
