"""Norm clipping: one update cannot count for more by being longer than the others."""

from __future__ import annotations

from collections.abc import Mapping

from model.factors import Adapter
from model.merge import clip_factors, update_norms


def clip_updates(updates: Mapping[str, Adapter], clip: float) -> dict[str, float]:
    """Shrinking factor per update so that none is longer than ``clip`` × the median norm.

    Updates of norm zero do not count in the median: those who send nothing cannot shrink the others.

    Args:
        updates: site → adapter.
        clip: × median.

    Returns:
        Site → factor in (0, 1].
    """
    norms = {site: norm for site, norm in update_norms(updates).items() if norm > 0}
    return dict.fromkeys(updates, 1.0) | (clip_factors(norms, clip) if norms else {})
