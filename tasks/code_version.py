"""Which code made a record: the release and a hash of the sources, git or no git."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path

from tasks.files import sha256_bytes

_ROOT = Path(__file__).resolve().parent.parent


@cache
def code_version() -> str:
    """Such as ``0.1.0+3f9c1b2a``; two machines with the same sources say the same."""
    sources = sorted(p for layer in ("model", "tasks") for p in (_ROOT / layer).glob("*.py"))
    lines = b"".join(p.name.encode() + p.read_bytes() for p in sources)
    return f"{version('cardiofed')}+{sha256_bytes(lines)[:8]}"
