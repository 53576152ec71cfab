"""Which code determines a cell: changing a report, a page or the live protocol leaves finished cells valid."""

from __future__ import annotations

import hashlib
from pathlib import Path

_STUDY = (
    "by_pairs",
    "by_steps",
    "by_weights",
    "cell",
    "cohorts",
    "local",
    "members",
    "methods",
    "scenarios",
    "trial",
)
_NO_TRAINING = ("statistics.py", "streaming.py")
_TASKS = ("acdc", "cases", "packing", "prepare", "rating_rule", "sites", "slices")


def cell_version() -> str:
    """Short hash of the modules that a cell's numbers come from: all of ``model`` that trains, and what calls it."""
    tasks = Path(__file__).resolve().parent.parent
    files = [f for f in sorted((tasks.parent / "model").rglob("*.py")) if f.name not in _NO_TRAINING]
    files += [tasks / "study" / f"{name}.py" for name in _STUDY]
    files += [tasks / f"{name}.py" for name in _TASKS]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.parent.name}/{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
