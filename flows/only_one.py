"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.errors import ConfigError


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Keep a second process from working in the same folder.

    Args:
        root: the folder; made when missing.

    Yields:
        Nothing; the folder is ours until the block ends, or the process.

    Raises:
        ConfigError: another process holds it.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = "another process works in this folder"
            raise ConfigError(
                said, str(root), "wait for it, or choose another folder or --run name"
            ) from None
        yield
