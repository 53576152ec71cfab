"""Where an auditor reads: a folder with a copy of the ledger, or the ledger itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from model.errors import AuditError, ConfigError, IntegrityError, ObjectMissingError
from tasks.ledger import AUDIT
from tasks.settings import load_environment
from tasks.store import Store

S3 = "s3://"


class Source(Protocol):
    """Objects by key."""

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin with a prefix, sorted."""

    def read(self, key: str) -> bytes | None:
        """An object as it lies there; None where there is none."""


@dataclass(frozen=True)
class Folder:
    """A copy of the ledger, a file per key."""

    root: Path

    def keys(self, prefix: str) -> list[str]:
        """See :class:`Source`."""
        names = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        return sorted(name for name in names if name.startswith(prefix))

    def read(self, key: str) -> bytes | None:
        """See :class:`Source`."""
        if key.startswith("/") or ".." in key.split("/"):
            return None  # a log may say anything
        path = self.root / key
        return path.read_bytes() if path.is_file() else None


@dataclass(frozen=True)
class Bucket:
    """The ledger itself, or a copy of it under a prefix."""

    store: Store
    prefix: str = ""

    def keys(self, prefix: str) -> list[str]:
        """See :class:`Source`."""
        return [info.key.removeprefix(self.prefix) for info in self.store.list(self.prefix + prefix)]

    def read(self, key: str) -> bytes | None:
        """See :class:`Source`."""
        try:
            return self.store.get(self.prefix + key)
        except ObjectMissingError:
            return None
        except IntegrityError:
            return b""  # whatever lies there, it is not what its writer announced


@dataclass(frozen=True)
class Remembered:
    """A source whose records are read once, so that all checks are of the same bytes."""

    source: Source
    _known: dict[str, bytes | None] = field(default_factory=dict)

    def keys(self, prefix: str) -> list[str]:
        """See :class:`Source`."""
        return self.source.keys(prefix)

    def read(self, key: str) -> bytes | None:
        """See :class:`Source`."""
        if not key.endswith(".json"):
            return self.source.read(key)
        if key not in self._known:
            self._known[key] = self.source.read(key)
        return self._known[key]


def open_source(place: str) -> Source:
    """What an auditor named.

    Args:
        place: a folder, or ``s3://BUCKET`` with or without a prefix; CARDIOFED_S3_… tell the store and who reads.

    Returns:
        Where to read.

    Raises:
        ConfigError: there is no such folder, or a variable is missing.
        AuditError: no audit log lies there.
    """
    source: Source
    if place.startswith(S3):
        bucket, _, prefix = place.removeprefix(S3).partition("/")
        env = load_environment().model_copy(update={"s3_bucket": bucket})
        source = Bucket(Store(env), f"{prefix.rstrip('/')}/" if prefix else "")
    else:
        source = Folder(Path(place))
        if not source.root.is_dir():
            raise ConfigError("there is no such folder", place, "name a copy of the ledger, or s3://BUCKET")
    if not source.keys(AUDIT):
        raise AuditError("no audit log lies there", place, f"name the folder that holds {AUDIT}")
    return source
