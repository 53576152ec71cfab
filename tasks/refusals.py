"""Which of a site's records in a round nobody takes, and why, in plain words: for whoever looks at its status."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pydantic import BaseModel

from model.errors import IntegrityError, ObjectMissingError, PackageError, SignatureError
from tasks.contact import Contact
from tasks.ledger import get_record, site_round_prefix
from tasks.limits import explain
from tasks.records import Evaluation, Ratings, Update, Verdict
from tasks.store import Store

KINDS: Mapping[str, tuple[type[BaseModel], str]] = {
    "contact.json": (Contact, "sign of life"),
    "update.json": (Update, "update"),
    "ratings.json": (Ratings, "ratings"),
    "verdict.json": (Verdict, "verdict"),
    "evaluation.json": (Evaluation, "evaluation"),
}
"""Name of a record → what it must be, and what people call it."""


def find_refused(store: Store, number: int, site: str, names: Collection[str]) -> dict[str, str]:
    """Those records of a site that are sealed by a wrong or revoked key, were changed since, or cannot be read.

    Args:
        store: the ledger's, with the hub's keys.
        number: of the round.
        site: whose records.
        names: of records that are there, keys of :data:`KINDS`; one request each.

    Returns:
        Name of the record → why it is refused.

    Raises:
        StoreError: the store does not answer.
    """
    found = {name: _why(store, f"{site_round_prefix(site, number)}{name}", KINDS[name][0]) for name in names}
    return {name: explain(why) for name, why in found.items() if why}


def _why(store: Store, key: str, kind: type[BaseModel]) -> str:
    try:
        get_record(store, key, kind)
    except (PackageError, IntegrityError, SignatureError) as error:
        return error.what
    except ObjectMissingError:  # gone again
        pass
    return ""
