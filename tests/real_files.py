"""Real archives beside the project, for tests that skip without them."""

from __future__ import annotations

from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_PLACES = [
    folder / "shared" / "data" for folder in (_ROOT.parent, _ROOT.parent.parent)
]  # a worktree lies deeper
REAL = next((place for place in _PLACES if place.exists()), _PLACES[0])
needs_real = pytest.mark.skipif(not REAL.exists(), reason="needs ../shared/data")
