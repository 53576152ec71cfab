"""Search whatever a federation left outside its hospitals, through every wrapping that hides bytes."""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import io
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.payloads import unwrap
from tasks.store import Store
from tasks.trust import HUB

_BASE64 = re.compile(rb"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{40,}={0,2}")
_HEX = re.compile(rb"(?<![0-9a-fA-F])(?:[0-9a-fA-F]{2}){16,}")
_ESCAPED = re.compile(rb"%[0-9a-fA-F]{2}|\\u00[0-9a-fA-F]{2}|\\x[0-9a-fA-F]{2}")
_DEPTH = 4


def find_marks(marks: Mapping[str, bytes], places: Iterable[tuple[str, bytes]]) -> list[str]:
    """Every mark that stands in a place, in its name or, however wrapped, in its bytes.

    Args:
        marks: name → bytes; those named ``word…`` are found in upper and lower case, the others have 16 bytes or more.
        places: name and bytes.

    Returns:
        ``mark in place``, a line each.
    """
    words = {name: mark.lower() for name, mark in marks.items() if name.startswith("word")}
    pieces = _Pieces({name: mark for name, mark in marks.items() if name not in words})
    found = set()
    for place, data in places:
        for layer in (place.encode(), *unwrapped(data)):
            small = layer.lower()
            found |= {f"{name} in {place}" for name, mark in words.items() if mark in small}
            found |= {f"{name} in {place}" for name in pieces.found_in(layer)}
    return sorted(found)


class _Pieces:
    """Hundreds of pieces of images, looked for at once by their first eight bytes."""

    def __init__(self, pieces: Mapping[str, bytes]) -> None:
        assert all(len(piece) >= 16 for piece in pieces.values())
        self._by_start: dict[int, list[tuple[str, bytes]]] = {}
        for name, piece in pieces.items():
            self._by_start.setdefault(int.from_bytes(piece[:8], "little"), []).append((name, piece))
        self._begins = np.zeros(1 << 16, bool)
        self._begins[[start & 0xFFFF for start in self._by_start]] = True

    def found_in(self, data: bytes) -> Iterator[str]:
        """Names of the pieces in some bytes."""
        for offset in range(min(8, max(0, len(data) - 7))):
            at_once = np.frombuffer(data, "<u8", (len(data) - offset) // 8, offset)
            likely = np.unique(at_once[self._begins[at_once & 0xFFFF]])
            for start in likely.tolist():
                yield from (name for name, piece in self._by_start.get(start, ()) if piece in data)


def unwrapped(data: bytes, depth: int = _DEPTH) -> Iterator[bytes]:
    """The bytes themselves, and what is inside when they are an archive, compressed, a picture or written as text."""
    yield data
    if depth == 0:
        return
    for inner in _inside(data):
        yield from unwrapped(inner, depth - 1)


def _inside(data: bytes) -> Iterator[bytes]:
    if data[:2] == b"\x1f\x8b":
        with contextlib.suppress(OSError, EOFError, zlib.error):
            yield gzip.decompress(data)
    if data[:1] == b"\x78":
        with contextlib.suppress(zlib.error):
            yield zlib.decompress(data)
    if data[:4] == b"PK\x03\x04":
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        with contextlib.suppress(OSError), Image.open(io.BytesIO(data)) as picture:
            yield np.asarray(picture.convert("L")).tobytes()
            return
    for run in _BASE64.findall(data):
        with contextlib.suppress(binascii.Error):
            yield base64.b64decode(
                run + b"=" * (-len(run) % 4), altchars=b"-_" if b"-" in run or b"_" in run else None
            )
    for run in _HEX.findall(data):
        yield bytes.fromhex(run.decode())
    if _ESCAPED.search(data):
        yield _ESCAPED.sub(lambda m: bytes([int(m[0][-2:], 16)]), data)
    if b"\x00" in data[:4000]:
        yield data.replace(b"\x00", b"")  # text in two bytes a letter


def in_store(store: Store) -> Iterator[tuple[str, bytes]]:
    """Everything in a bucket: the ledger, the hub's own part, and the DVC remote."""
    for info in store.list(""):
        found = store._client.get_object(Bucket=store.bucket, Key=info.key)  # DVC's own announce no hash
        yield f"s3 {info.key}", found["Body"].read()


def opened_at_hub(store: Store) -> Iterator[tuple[str, bytes]]:
    """What is inside the encrypted packages that the hub can open: all but its own keys, and those of the sites."""
    for info in store.list(""):
        if info.key.endswith(".safetensors") and not info.key.startswith("global/base/"):
            yield f"opened {info.key}", unwrap(store, info.key, store.get(info.key), HUB)


def in_folder(folder: Path, leave_out: Iterable[str] = ()) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder, its name as it stands below it."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not any(part in name for part in leave_out):
            yield f"{folder.name}/{name}", path.read_bytes()


def in_database(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every row of every table of an SQLite database: a long text lies in pieces in its file."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            for row in database.execute(f'select * from "{table}"'):
                cells = (cell if isinstance(cell, bytes) else str(cell).encode() for cell in row)
                yield f"database {table}", b"\n".join(cells)
