"""The shared base: the one the federation announced, in the ledger and in the local copy."""

from __future__ import annotations

from tasks.doctor.finding import Finding, broken, doubtful, named, well
from tasks.files import sha256_file
from tasks.homes import Home
from tasks.ledger import base_key, federation_key, find_record
from tasks.pretrain import read_base
from tasks.records import Base, FederationRecord
from tasks.workspace import Workspace

_REPLACE = "the hub's next run puts the right one there: `cardiofed round retry`"


@named("base")
def site_base(ws: Workspace, home: Home) -> Finding:
    """The announced base is in the ledger; a local copy has its hash. Before the first round there is none."""
    record = find_record(ws.store, federation_key(), FederationRecord)
    if record is None:
        return well("none announced yet: no round was opened")
    fault = _in_ledger(ws, record.base)
    if fault is not None:
        return fault
    sha256 = record.base.sha256
    kept = ws.site_home(home.name) / "cache" / f"{sha256}.safetensors"
    if not kept.exists():
        return well(f"{sha256[:12]}… is in the ledger, not yet downloaded")
    if sha256_file(kept) != sha256:
        return doubtful(
            f"the copy of {sha256[:12]}… is damaged", "nothing to do: the next round fetches it again"
        )
    return well(f"{sha256[:12]}… is in the ledger, and here")


@named("base")
def hub_base(ws: Workspace, home: Home) -> Finding:
    """The base in the hub's folder is the one of ``base.json``, and the one the federation stands on."""
    base = read_base(ws.base_home)
    if base is None:
        return broken("there is none in the folder base", "restore it, or train it: the pretrain stage")
    if sha256_file(ws.base_home / f"{base.sha256}.safetensors") != base.sha256:
        return broken("its file has other bytes than base.json says", "restore it, or train it again")
    record = find_record(ws.store, federation_key(), FederationRecord)
    if record is None:
        return well(f"{base.sha256[:12]}…, published with the first round")
    if record.base != base:
        return broken("the federation stands on another base", "restore it, or start in an empty bucket")
    return _in_ledger(ws, base) or well(f"{base.sha256[:12]}… here and in the ledger")


def _in_ledger(ws: Workspace, base: Base) -> Finding | None:
    announced = ws.store.sha256_of(base_key(base.sha256))
    if announced is None:
        return broken(
            f"the ledger lacks the announced base {base.sha256[:12]}…", "the hub's next round puts it there"
        )
    if announced != base.sha256:
        return broken(f"what the ledger holds as base {base.sha256[:12]}… is another file", _REPLACE)
    return None
