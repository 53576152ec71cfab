"""What sites answered, read without trusting them: an answer that cannot be read counts as none."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel

from model.errors import IntegrityError, PackageError, SignatureError
from tasks.ledger import find_record
from tasks.store import Store

T = TypeVar("T", bound=BaseModel)


def find_answer(store: Store, key: str, kind: type[T]) -> T | None:
    """Read a site's record without trusting it.

    One site's broken file must not stop the round for the others, and the site itself writes it anew.

    Args:
        store: the ledger's store.
        key: where the record stands.
        kind: what it must be.

    Returns:
        The record; None when there is none, or one that is malformed, not the announced bytes, or not by the site.

    Raises:
        StoreUnreachableError: nobody answers, which says nothing about the record.
        StoreDeniedError: these credentials may not read it.
    """
    try:
        return find_record(store, key, kind)
    except (PackageError, IntegrityError, SignatureError):
        return None
