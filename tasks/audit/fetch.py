"""Copy what can be read of the ledger into a folder, so that it can be audited anywhere, offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from model.errors import IntegrityError, PackageError
from tasks.files import write_atomic
from tasks.homes import HUB
from tasks.ledger import site_prefix
from tasks.store import ObjectInfo, Store

_PARTS = ("", ".", "..")


def fetch_ledger(store: Store, name: str, out: Path) -> tuple[int, int]:
    """Copy the ledger's public part and what its reader may see of the sites, a file per key.

    Args:
        store: the ledger's store.
        name: of the machine that reads: the hub sees all sites, a site only itself.
        out: the folder; what lies there already is written over.

    Returns:
        Number of objects, and their bytes.

    Raises:
        StoreError: the store does not answer.
        DiskError: the folder cannot be written.
    """
    objects = n_bytes = 0
    for info in _wanted(store, name):
        try:
            data = store.get(info.key)
        except IntegrityError:
            continue  # nobody vouches for it; the audit finds it missing
        write_atomic(out / _plain(info.key), data)
        objects, n_bytes = objects + 1, n_bytes + len(data)
    return objects, n_bytes


def _wanted(store: Store, name: str) -> Iterator[ObjectInfo]:
    yield from store.list("sites/" if name == HUB else site_prefix(name))
    yield from store.list("global/")  # later, so that no site has seen a longer log than is copied


def _plain(key: str) -> PurePosixPath:
    path = PurePosixPath(key)
    if path.is_absolute() or any(part in _PARTS for part in key.split("/")):
        raise PackageError(f"object name {key[:80]!r} is no plain path", key, "remove it from the store")
    return path
