"""The left ventricle's volume over the cardiac cycle: where it is fullest, where emptiest, and where it jumps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.errors import PhaseError

JUMP = 0.15
"""Share of the largest volume. A cycle of 10 phases that falls by 60 % within 4 of them bends by 9 % at most."""
JUMP_FROM = 10
"""Phases; coarser cycles bend that much by themselves."""


def find_phases(lv_ml: Sequence[float]) -> tuple[int, int]:
    """Find ED and ES: the largest and the smallest volume of the cycle, phases that jump left out.

    Args:
        lv_ml: ``(T,)`` LV cavity volume by phase, ml.

    Returns:
        Index of ED and of ES; the first of equals.

    Raises:
        PhaseError: fewer than two phases, or a volume that never changes.
    """
    curve = np.asarray(lv_ml, np.float64)
    failed = set(jumps(lv_ml))
    kept = [t for t in range(len(curve)) if t not in failed]
    if len(kept) < 2:
        raise PhaseError(f"{len(kept)} phase has no ED and ES", mend="give a cine")
    ed, es = max(kept, key=lambda t: (curve[t], -t)), min(kept, key=lambda t: (curve[t], t))
    if curve[ed] <= curve[es]:
        raise PhaseError(f"the LV measures {curve[ed]:.1f} ml in every phase", mend="name the phases by hand")
    return ed, es


def jumps(lv_ml: Sequence[float]) -> list[int]:
    """Phases whose volume lies off the middle between both neighbours by more than 15 % of the largest.

    The cycle has no end: its last phase stands beside its first.

    Args:
        lv_ml: ``(T,)`` LV cavity volume by phase, ml, of one cycle.

    Returns:
        Their indices; none below 10 phases. A failed phase moves its neighbours' middles too, so of neighbours only
        the worst is named.
    """
    curve = np.asarray(lv_ml, np.float64)
    if len(curve) < JUMP_FROM or curve.max() <= 0:
        return []
    off = np.abs(curve - (np.roll(curve, 1) + np.roll(curve, -1)) / 2) / curve.max()
    worst = (off >= np.roll(off, 1)) & (off >= np.roll(off, -1)) & (off > JUMP)
    return [int(t) for t in np.flatnonzero(worst)]
