"""Versions of rounds: what a round published, kept by DVC in a git repository of its own, one tag per round.

Order makes it resumable: fetch, ``dvc add``, ``dvc push``, commit, tag. A tag therefore means that everything
before it is done, and a run that was killed anywhere is simply run again.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from model.errors import (
    ConfigError,
    DiskError,
    IntegrityError,
    ObjectMissingError,
    PackageError,
    RoundError,
    StoreError,
)
from tasks.files import sha256_file, write_atomic
from tasks.ledger import SITE_FILES, checked_name, round_prefix, site_round_prefix
from tasks.settings import Environment
from tasks.store import Store
from tasks.version_repo import REMOTE_PREFIX, commit_paths, dvc_errors, dvc_in, git, one_writer, prepare

_SITE_BYTES_MAX = 64_000_000  # larger objects of a site are left out, so that none can fill the hub's disk
_PATH = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class Versioned:
    """A round that can be checked out."""

    tag: str
    commit: str
    files: int
    bytes: int
    skipped: tuple[str, ...] = ()
    """site objects left out because their bytes are not the announced ones, or far too many"""


def open_versions(repo: Path, env: Environment) -> None:
    """Make the repository unless it is there, and point its DVC remote at the store.

    Credentials go to ``.dvc/config.local`` (0600, not tracked) only. Nothing of the user's own git or DVC
    configuration is used or changed.

    Args:
        repo: the versions' own repository.
        env: address and credentials of the store, for DVC.

    Raises:
        DiskError: the folder cannot be written, or git fails.
        ConfigError: git is not installed.
    """
    repo = repo.absolute()
    with one_writer(repo):
        prepare(repo, env)


def version_round(repo: Path, store: Store, number: int, env: Environment) -> Versioned:
    """Keep everything round ``number`` published under the tag ``round-NNNN``, and push it to the DVC remote.

    A round that is tagged and pushed is left as it is, so what a site publishes later is not in it. Killed
    half-way, the next call completes it.

    Args:
        repo: the versions' own repository; made when missing.
        store: the ledger.
        number: of the round.
        env: the same store, for DVC.

    Returns:
        Tag and commit of the round, how many files and bytes it has, and, from the call that tagged it, the
        site objects it left out.

    Raises:
        RoundError: the round published nothing.
        StoreError: the store does not give or take it.
        DiskError: the folder cannot be written, or git or DVC fail in it.
    """
    repo = repo.absolute()
    with one_writer(repo):
        prepare(repo, env)
        tag = f"round-{number:04d}"
        done = _tagged(repo, tag, number)
        if done is not None:
            if not _is_pushed(repo, store, tag, number):
                _push(repo, number)
            return done
        skipped = _fetch(repo, store, number)
        _add(repo, number)
        _push(repo, number)
        commit_paths(repo, ("rounds/.gitignore", _pointer(number)), f"Round {number}")
        commit = git(repo, "log", "-1", "--format=%H", "--", _pointer(number))
        git(repo, "tag", "-a", "-m", f"Round {number}", tag, commit)
        return _versioned(repo, tag, number, skipped)


def _fetch(repo: Path, store: Store, number: int) -> tuple[str, ...]:
    """Bring the round's objects into its folder, nothing else in it; returns the site objects left out."""
    folder = repo / "rounds" / f"{number:04d}"
    published = {**_of_hub(store, number), **_of_sites(store, number)}
    if not published:
        mend = "version a round after it was closed"
        raise RoundError(f"round {number} published nothing", round_prefix(number), mend)
    skipped = tuple(key for key, name in published.items() if not _fetch_one(store, key, folder / name))
    wanted = {folder / name for key, name in published.items() if key not in skipped}
    for path in [path for path in folder.rglob("*") if path.is_file() and path not in wanted]:
        path.unlink()  # left by a run that was killed
    return skipped


def _fetch_one(store: Store, key: str, path: Path) -> bool:
    """Whether the object could be kept; one that is there already is not downloaded again."""
    of_site = key.startswith("sites/")
    if path.exists() and store.sha256_of(key) == sha256_file(path):
        return True
    try:
        write_atomic(path, store.get(key, max_bytes=_SITE_BYTES_MAX if of_site else None))
    except (IntegrityError, PackageError, ObjectMissingError):
        if not of_site:
            raise
        return False
    return True


def _of_hub(store: Store, number: int) -> dict[str, str]:
    prefix = round_prefix(number)
    names = {info.key: info.key.removeprefix(prefix) for info in store.list(prefix) if info.key != prefix}
    for key, name in names.items():
        if not _PATH.fullmatch(name):
            mend = "remove it; this program never writes such a key"
            raise PackageError(f"object name {name[:80]!r} is no plain path", key, mend)
    return names


def _of_sites(store: Store, number: int) -> dict[str, str]:
    """Only keys the protocol knows, so that a site cannot choose where the hub writes."""
    found = {info.key for info in store.list("sites/")}
    names: dict[str, str] = {}
    for site in sorted({key.split("/")[1] for key in found}):
        with contextlib.suppress(ConfigError):  # no site of ours has such a name
            prefix = site_round_prefix(checked_name(site), number)
            names |= {prefix + file: f"sites/{site}/{file}" for file in SITE_FILES if prefix + file in found}
    return names


def _pointer(number: int) -> str:
    return f"rounds/{number:04d}.dvc"


def _add(repo: Path, number: int) -> None:
    try:
        with dvc_in(repo) as dvc:
            dvc.add([str(repo / "rounds" / f"{number:04d}")])
    except dvc_errors() as error:
        where = str(repo / _pointer(number))
        raise DiskError(
            f"DVC could not add the round: {error}", where, "free some space and run again"
        ) from error


def _push(repo: Path, number: int) -> None:
    try:
        with dvc_in(repo) as dvc:
            dvc.push(targets=[str(repo / _pointer(number))])
    except dvc_errors() as error:
        where = f"DVC remote of {repo}"
        raise StoreError(
            f"DVC could not push the round: {error}", where, "run again; it continues"
        ) from error


def _tagged(repo: Path, tag: str, number: int) -> Versioned | None:
    return _versioned(repo, tag, number) if git(repo, "tag", "--list", tag) else None


def _versioned(repo: Path, tag: str, number: int, skipped: tuple[str, ...] = ()) -> Versioned:
    out = _out(repo, tag, number)
    commit = git(repo, "rev-parse", f"{tag}^{{commit}}")
    return Versioned(tag, commit, int(out["nfiles"]), int(out["size"]), skipped)


def _out(repo: Path, tag: str, number: int) -> dict[str, Any]:
    tree = yaml.safe_load(git(repo, "show", f"{tag}:{_pointer(number)}"))
    out: dict[str, Any] = tree["outs"][0]
    return out


def _is_pushed(repo: Path, store: Store, tag: str, number: int) -> bool:
    """DVC uploads a folder's listing after all its files, so the listing vouches for them."""
    md5 = str(_out(repo, tag, number)["md5"])
    return store.exists(f"{REMOTE_PREFIX}/files/md5/{md5[:2]}/{md5[2:]}")
