"""The clinical channel in git: versions and their order as tags in GTO's form, read and written.

``cardiofed@v1.2.0`` names a commit with its card and model; ``cardiofed#clinical#4`` says that this commit is in the
channel from then on, until ``#5``. A tag is one file that git puts in place whole: what is in the channel changes
with it or not at all. Written by our own blind git, not by GTO's, which would ask the user's configuration.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from tasks.files import sha256_bytes
from tasks.release.records import Card, Released
from tasks.version_repo import git

ARTIFACT, CHANNEL = "cardiofed", "clinical"
CARD = "release/card.json"
_STAGE = re.compile(rf"{ARTIFACT}#{CHANNEL}#(\d+)")
_VERSION = re.compile(rf"{ARTIFACT}@(v\d+\.\d+\.\d+)")


@dataclass(frozen=True)
class Assignment:
    """One entry of the channel's history."""

    number: int
    commit: str
    fact: Released


def history(repo: Path) -> tuple[Assignment, ...]:
    """Everything that was ever in the channel, oldest first.

    Args:
        repo: the versions' repository.

    Returns:
        The assignments by number; empty when nothing was released, or there is no repository.

    Raises:
        DiskError: git fails.
        ValueError: a tag of this channel was not written by this program.
    """
    if not (repo / ".git").exists():
        return ()
    names = git(repo, "tag", "--list", f"{ARTIFACT}#{CHANNEL}#*").split()
    numbers = sorted(int(match[1]) for name in names if (match := _STAGE.fullmatch(name)))
    return tuple(_assignment(repo, number) for number in numbers)


def in_force(entries: tuple[Assignment, ...]) -> tuple[Assignment, ...]:
    """The releases that stand on one another, the current one last: a rollback takes the topmost away.

    Args:
        entries: as :func:`history` returns them.

    Returns:
        Empty when nothing is released.
    """
    stack: list[Assignment] = []
    for entry in entries:
        if entry.fact.action == "rollback":
            stack.pop()
        else:
            stack.append(entry)
    return tuple(stack)


def current_release(repo: Path) -> Assignment | None:
    """What is in the channel now; None before the first release."""
    standing = in_force(history(repo))
    return standing[-1] if standing else None


def read_card(repo: Path, release: str) -> tuple[Card, str]:
    """The card of a release, and the hash of its bytes."""
    data = f"{git(repo, 'show', f'{ARTIFACT}@{release}:{CARD}')}\n".encode()  # git() strips the last newline
    return Card.model_validate_json(data), sha256_bytes(data)


def versions(repo: Path) -> list[str]:
    """Registered versions, oldest first."""
    if not (repo / ".git").exists():
        return []
    names = git(repo, "tag", "--list", f"{ARTIFACT}@v*").split()
    return sorted((match[1] for name in names if (match := _VERSION.fullmatch(name))), key=_parts)


def next_version(repo: Path, base_sha256: str) -> str:
    """v1.0.0 first; then the next minor one, or the next major one when the base is another."""
    known = versions(repo)
    if not known:
        return "v1.0.0"
    major, minor, _ = _parts(known[-1])
    same = read_card(repo, known[-1])[0].model.base.sha256 == base_sha256
    return f"v{major}.{minor + 1}.0" if same else f"v{major + 1}.0.0"


def drop_unassigned(repo: Path) -> None:
    """Forget versions that never came into the channel: what a killed release left."""
    assigned = {entry.fact.release for entry in history(repo)}
    for version in versions(repo):
        if version not in assigned:
            git(repo, "tag", "-d", f"{ARTIFACT}@{version}")


def register(repo: Path, release: str, commit: str, message: str) -> None:
    """Name a commit as a version; its card and model are there, and pushed."""
    git(repo, "tag", "-a", "-m", message, f"{ARTIFACT}@{release}", commit)


def assign(repo: Path, fact: Released) -> None:
    """Put a registered version into the channel: the one step that changes what is released.

    Args:
        repo: the versions' repository.
        fact: kept as the tag's message; its number is the next one.
    """
    before = history(repo)
    if before and _second(repo, before[-1]) >= int(time.time()):
        time.sleep(1.1)  # GTO orders assignments by the second
    message = f"{fact.action} {fact.release} to {CHANNEL}\n\n{fact.model_dump_json()}"
    commit = git(repo, "rev-parse", f"{ARTIFACT}@{fact.release}^{{commit}}")
    git(repo, "tag", "-a", "-m", message, _stage(fact.number), commit)


def _stage(number: int) -> str:
    return f"{ARTIFACT}#{CHANNEL}#{number}"


def _assignment(repo: Path, number: int) -> Assignment:
    body = git(repo, "for-each-ref", "--format=%(contents:body)", f"refs/tags/{_stage(number)}")
    commit = git(repo, "rev-parse", f"{_stage(number)}^{{commit}}")
    return Assignment(number, commit, Released.model_validate_json(body))


def _second(repo: Path, entry: Assignment) -> int:
    ref = f"refs/tags/{_stage(entry.number)}"
    return int(git(repo, "for-each-ref", "--format=%(taggerdate:unix)", ref))


def _parts(version: str) -> tuple[int, int, int]:
    major, minor, patch = (int(part) for part in version.removeprefix("v").split("."))
    return major, minor, patch
