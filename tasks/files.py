"""Local files that are either whole or absent, and the hashes that name their content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from model.errors import DiskError

_CHUNK_BYTES = 1 << 20


def write_atomic(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old content or the new one, never a part.

    A temporary file in the same folder is written, synced and renamed; a kill or a full disk leaves the old
    file in place.

    Args:
        path: the file; missing folders are made.
        data: its new content.
        mode: permissions of the new file, before the process's umask; ``0o600`` for secrets.

    Raises:
        DiskError: the disk is full or the folder cannot be written; the temporary file is gone.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_synced(temporary, data, mode)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _disk_error(error, path, len(data)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of ``data``, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def json_bytes(tree: Any) -> bytes:
    """Serialise a tree so that equal trees give equal bytes.

    Args:
        tree: mappings, sequences, strings, numbers, booleans and None.

    Returns:
        Canonical JSON: keys sorted, no blanks, UTF-8, one newline at the end.

    Raises:
        ValueError: NaN or infinity, which JSON does not have.
        TypeError: something JSON does not have.
    """
    text = json.dumps(tree, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


def _write_synced(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_error(error: OSError, path: Path, size: int) -> DiskError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(f"no space left for {size} bytes", str(path), "free some space and run again")
    reason = error.strerror or str(error)
    return DiskError(
        f"cannot write {size} bytes: {reason}", str(path), "check the folder and its permissions"
    )
