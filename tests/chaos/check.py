"""Whether a round ended as it would have without any fault, and left nothing behind."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Collection

from federation_files import SITES, objects
from machines import Federation
from operating import active

from tasks.ledger import (
    adapter_key,
    close_key,
    evaluation_key,
    find_record,
    get_record,
    merge_key,
    merged_key,
    rest_key,
    update_key,
)
from tasks.payloads import unwrap
from tasks.records import Close, Evaluation, MergeRecord, Update
from tasks.store import Store
from tasks.trust import HUB
from tasks.workspace import Workspace

MUTABLE = (
    *("contact.json", "waiting.json", "doctor.json", "head.json", ".age"),
    *("global/hub.json", "global/current.json", "global/federation.json"),
)
"""Written again and again; all else stays as it was written."""
_OWN_TO_A_RUN = {"plan_sha256", "merge_sha256", "verdicts_sha256", "closed"}
"""Fields of a close that hold times, or hashes of records that hold times and nonces."""


def check_round(federation: Federation, twin: Workspace, number: int, spoilt: Collection[str] = ()) -> Close:
    """Compare a round with its twin's, and look for what a fault could have left.

    Args:
        federation: the round is over there.
        twin: the round was played there without a fault.
        number: of the round.
        spoilt: keys whose bytes were replaced on purpose.

    Returns:
        How the round ended.
    """
    close = get_record(federation.store, close_key(number), Close)
    assert _kept(close) == _kept(get_record(twin.store, close_key(number), Close))
    for key in (merged_key(number), rest_key(number)):
        assert _package(federation.store, key) == _package(twin.store, key), key
    assert _receipts(federation.store, number) == _receipts(twin.store, number)
    for site in SITES:
        assert _sent(federation.store, site, number) == _sent(twin.store, site, number), site
        assert _measured(federation.store, site, number) == _measured(twin.store, site, number), site
        twice = [done for done, times in _done(federation, site).items() if times > 1]
        assert not twice, f"{site} did this twice: {twice}"
    assert not active(federation)
    assert not [run for run in federation.prefect.runs() if run.state == "RUNNING"]
    tags = _git(federation, "tag", "--list").split()
    assert f"round-{number:04d}" in tags
    strange = (*spoilt, "dvc/")  # DVC's objects are named by their content
    objects(federation.store, skip=lambda key: key.startswith(strange))  # reads all and checks its hash
    return close


def immutable(federation: Federation) -> dict[str, str]:
    """Key → announced sha256 of all that is written once; DVC's own objects are named by their content."""
    keys = [info.key for info in federation.store.list("")]
    kept = [key for key in keys if not key.endswith((*MUTABLE, "/")) and not key.startswith("dvc/")]
    return {key: str(federation.store.sha256_of(key)) for key in kept}


def trainings(federation: Federation, number: int) -> dict[str, int]:
    """Site → how often it trained to the end in a round."""
    return {site: _done(federation, site)["train", number] for site in SITES}


def unheard(federation: Federation, last: int) -> list[tuple[str, int]]:
    """Site and round of updates that were sent and never became part of a merge, in all rounds so far."""
    sent = {
        (site, number)
        for number in range(1, last + 1)
        for site in SITES
        if find_record(federation.store, update_key(site, number), Update)
    }
    for number in range(1, last + 1):
        for receipt in get_record(federation.store, merge_key(number), MergeRecord).receipts:
            sent.discard((receipt.site, number - receipt.age))
    return sorted(sent)


def missing_versions(federation: Federation) -> list[str]:
    """What of the tagged rounds the DVC remote lacks."""
    missing = []
    for tag in _git(federation, "tag", "--list", "round-*").split():
        pointer = _git(federation, "show", f"{tag}:rounds/{tag[-4:]}.dvc")
        md5 = pointer.split("md5: ")[1].split()[0]
        listing = _md5_key(md5)
        if not federation.store.exists(listing):
            missing.append(listing)
            continue
        entries = json.loads(_read(federation.store, listing))
        keys = [_md5_key(entry["md5"]) for entry in entries]
        missing += [key for key in keys if not federation.store.exists(key)]
    return missing


def _package(store: Store, key: str) -> bytes:
    """What the hub reads there; encryption is another one every time."""
    return unwrap(store, key, store.get(key), HUB)


def _kept(close: Close) -> dict[str, object]:
    return close.model_dump(exclude=_OWN_TO_A_RUN)


def _receipts(store: Store, number: int) -> object:
    return get_record(store, merge_key(number), MergeRecord).receipts


def _sent(store: Store, site: str, number: int) -> str | None:
    found = find_record(store, update_key(site, number), Update)
    return found.adapter_sha256 if found and store.exists(adapter_key(site, number)) else None


def _measured(store: Store, site: str, number: int) -> Evaluation | None:
    return find_record(store, evaluation_key(site, number), Evaluation)


def _done(federation: Federation, site: str) -> Counter[tuple[str, int | None]]:
    path = federation.machines[site].home / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return Counter((event["phase"], event.get("round")) for event in events if event["action"] == "done")


def _git(federation: Federation, *arguments: str) -> str:
    folder = str(federation.root / "hub" / "versions")
    command = ["git", "-c", "safe.directory=*", "-C", folder, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _md5_key(md5: str) -> str:
    return f"dvc/files/md5/{md5[:2]}/{md5[2:]}"


def _read(store: Store, key: str) -> bytes:
    return store._client.get_object(Bucket=store.bucket, Key=key)["Body"].read()  # DVC announces no sha256
