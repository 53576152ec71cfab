"""The ledger: the one place for every object key, and records that go in and out as sealed, checked JSON."""

from __future__ import annotations

import re
from typing import TypeVar

from pydantic import BaseModel

from model.errors import ConfigError, ObjectMissingError, PackageError
from tasks.files import json_bytes
from tasks.limits import OF_HUB, limits_of, parse_record
from tasks.seal import SEAL_BYTES
from tasks.store import Store

RECORD_BYTES = OF_HUB.n_bytes
"""A larger record is refused before it is downloaded; for a site's, :mod:`tasks.limits` draws it closer."""

FEDERATION = "global/federation.json"
AUDIT = "global/audit/"
RELEASES = "global/releases/"
SITE_FILES = ("adapter.safetensors", "update.json", "ratings.json", "verdict.json", "evaluation.json")
"""Everything a site publishes in a round."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


T = TypeVar("T", bound=BaseModel)


def checked_name(name: str, kind: str = "site") -> str:
    """Check that a name can stand in a key: 1 to 40 of a-z, 0-9 and -, not starting with -.

    Args:
        name: of a site or a candidate.
        kind: what it names, for the error message.

    Returns:
        ``name`` itself.

    Raises:
        ConfigError: anything else, so that a name never becomes a path.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{kind} name {name[:60]!r} cannot be used in a key",
            f"{kind} name",
            "use 1 to 40 of a-z, 0-9 and '-', starting with a letter or digit",
        )
    return name


def round_prefix(number: int) -> str:
    """What the hub wrote in a round.

    Args:
        number: of the round, 0 to 9999.

    Returns:
        ``global/rounds/0007/`` for round 7.

    Raises:
        ConfigError: the number is not 0 to 9999.
    """
    return f"global/rounds/{_digits(number)}/"


def site_prefix(site: str) -> str:
    """``sites/st-anna/``: all a site may write."""
    return f"sites/{checked_name(site)}/"


def site_round_prefix(site: str, number: int) -> str:
    """``sites/st-anna/rounds/0007/``: what a site wrote in a round."""
    return f"{site_prefix(site)}rounds/{_digits(number)}/"


def federation_key() -> str:
    """The federation's own record."""
    return FEDERATION


def roster_key() -> str:
    """The hospitals the hub has invited."""
    return "global/roster.json"


def invitations_key() -> str:
    """The invitations that may still be used, and who used the others; for the hub alone."""
    return "hub/invitations.json"


def key_key(site: str) -> str:
    """The public keys that a hospital offers."""
    return f"{site_prefix(site)}key.json"


def over_key(number: int) -> str:
    """That the hub has nothing left to do for a round."""
    return f"hub/rounds/{_digits(number)}/over.json"


def versions_key() -> str:
    """The versions of the software that the hub runs."""
    return "global/versions.json"


def doctor_keys(site: str | None) -> tuple[str, ...]:
    """Where the check of a machine's rights writes, anew each time; nothing else reads or writes there.

    Args:
        site: whose place; None for the hub's places.

    Returns:
        One key per place that the machine may write.
    """
    if site is None:
        return "hub/doctor.json", "global/doctor.json"
    return (f"{site_prefix(site)}doctor.json",)


def hub_lease_key() -> str:
    """Which process works for the hub."""
    return "global/hub.json"


def base_key(sha256: str) -> str:
    """The frozen base network, named by its content.

    Args:
        sha256: of its file, 64 hexadecimal digits in lower case.

    Returns:
        ``global/base/<sha256>.safetensors``.

    Raises:
        ConfigError: not 64 hexadecimal digits.
    """
    if not _SHA256.fullmatch(sha256):
        raise ConfigError(f"{sha256[:80]!r} is no sha256", "base", "give its 64 hexadecimal digits")
    return f"global/base/{sha256}.safetensors"


def card_key(site: str) -> str:
    """What a site says about itself: scanner, number of patients, no images."""
    return f"{site_prefix(site)}card.json"


def plan_key(number: int) -> str:
    """Opens a round: who is invited, from which model."""
    return f"{round_prefix(number)}plan.json"


def adapter_key(site: str, number: int) -> str:
    """The adapter a site trained in a round."""
    return f"{site_round_prefix(site, number)}adapter.safetensors"


def update_key(site: str, number: int) -> str:
    """The record that announces a site's adapter."""
    return f"{site_round_prefix(site, number)}update.json"


def candidate_key(blind_id: str, number: int) -> str:
    """An admitted adapter under the name the raters know it by."""
    return f"{round_prefix(number)}candidates/{checked_name(blind_id, 'candidate')}.safetensors"


def candidates_key(number: int) -> str:
    """Which adapters were admitted, and what was quarantined and why."""
    return f"{round_prefix(number)}candidates.json"


def senders_key(number: int) -> str:
    """Who sent which candidate: the hub's own, in a part of the store that no site reads."""
    return f"hub/rounds/{_digits(number)}/senders.json"


def ratings_key(site: str, number: int) -> str:
    """A site's scores of the others' candidates."""
    return f"{site_round_prefix(site, number)}ratings.json"


def merged_key(number: int) -> str:
    """The merged step: what the sites judge, and what they fold in the part of it that is accepted."""
    return f"{round_prefix(number)}merged.safetensors"


def merge_key(number: int) -> str:
    """How the merge was weighted, with a receipt per site."""
    return f"{round_prefix(number)}merge.json"


def verdict_key(site: str, number: int) -> str:
    """A site's scores of the merged step."""
    return f"{site_round_prefix(site, number)}verdict.json"


def rest_key(number: int) -> str:
    """What the package of a merged step could not carry; only the hub's next merge reads it."""
    return f"{round_prefix(number)}rest.safetensors"


def close_key(number: int) -> str:
    """How a round ended."""
    return f"{round_prefix(number)}close.json"


def evaluation_key(site: str, number: int) -> str:
    """A site's test metrics of the closed round: numbers only."""
    return f"{site_round_prefix(site, number)}evaluation.json"


def contact_key(site: str, number: int) -> str:
    """A site's sign of life in a round."""
    return f"{site_round_prefix(site, number)}contact.json"


def visit_key(site: str) -> str:
    """When a site that comes by itself was here last, in a round or not."""
    return f"{site_prefix(site)}visit.json"


def waiting_key(number: int) -> str:
    """Whom the hub waits for in a round, and until when."""
    return f"{round_prefix(number)}waiting.json"


def audit_segment_key(n: int) -> str:
    """A piece of the audit log.

    Args:
        n: number of its first entry.

    Returns:
        ``global/audit/00000042.jsonl`` for entry 42.
    """
    return f"{AUDIT}{n:08d}.jsonl"


def audit_head_key() -> str:
    """The hub's word for how far the audit log goes."""
    return f"{AUDIT}head.json"


def hub_keys_key() -> str:
    """The keys of published steps and who has them, encrypted to the hub."""
    return "hub/keys.age"


def site_keys_key(site: str) -> str:
    """The keys of published steps, encrypted to a site."""
    return f"global/keys/{checked_name(site)}.age"


def current_key() -> str:
    """The round that was opened last; sites that may not list find it here."""
    return "global/current.json"


def release_key(number: int) -> str:
    """One change of the clinical channel, by its number there; written once."""
    return f"{RELEASES}{_digits(number)}.json"


def released_key() -> str:
    """What is in the clinical channel now."""
    return "global/released.json"


def report_key(number: int) -> str:
    """The round's report for people."""
    return f"{round_prefix(number)}report.html"


def put_record(store: Store, key: str, record: BaseModel) -> str:
    """Write a record as canonical JSON, sealed in the name of whose key it is.

    Args:
        store: the ledger's store, with the keys of a machine or run.
        key: where it shall stand; what was there is replaced.
        record: what is written.

    Returns:
        The sha256 of its bytes, seal included.

    Raises:
        PackageError: a number is NaN or infinite; use None for "undefined".
        KeyFileError: this machine does not speak for whose key it is.
        StoreError: the store did not take it.
    """
    try:
        data = json_bytes(record.model_dump(mode="json"))
    except ValueError as error:
        what = f"{type(record).__name__} holds a number JSON does not have (NaN or infinity)"
        raise PackageError(what, key, "leave an undefined value out or write it as null") from error
    return store.put(key, store.seals.sealed(key, data), content_type="application/json")


def get_record(store: Store, key: str, kind: type[T], max_bytes: int = RECORD_BYTES) -> T:
    """Read a record: its size is checked before the download, its seal before it is parsed, then every field.

    Args:
        store: the ledger's store.
        key: where it stands.
        kind: what it must be.
        max_bytes: a larger object is refused before it is downloaded.

    Returns:
        The record, every field of it present and of the right type.

    Raises:
        ObjectMissingError: there is none.
        SignatureError: it is not by whose word counts under this key, or was written for another key.
        PackageError: beyond :mod:`tasks.limits`, not JSON, or fields missing, unknown or of the wrong type.
        StoreError: the store did not give it, or not the bytes that were announced.
    """
    limits = limits_of(key)
    data = store.get(key, max_bytes=min(max_bytes, limits.n_bytes) + SEAL_BYTES)
    return parse_record(store.seals.opened(key, data), kind, key, limits)


def find_record(store: Store, key: str, kind: type[T], max_bytes: int = RECORD_BYTES) -> T | None:
    """As ``get_record``, but None when there is none yet."""
    try:
        return get_record(store, key, kind, max_bytes)
    except ObjectMissingError:
        return None


def _digits(number: int) -> str:
    if not 0 <= number <= 9999:
        raise ConfigError(f"round {number} does not exist", "round number", "rounds go from 0 to 9999")
    return f"{number:04d}"
