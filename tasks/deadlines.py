"""How long a site may take, learned from what it took before and from how much data it has."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

LOOK_BACK = 5
"""Rounds that count; older ones tell of another machine or link."""
SLACK = 3.0
"""Times as long as the slowest of them."""
FEWEST_S = 60.0


def deadline_s(
    own: list[float], others: Mapping[str, list[float]], share: Mapping[str, float], site: str, most_s: float
) -> float:
    """Seconds a site is given for one phase.

    Args:
        own: what the phase took the site in earlier rounds, the latest last, seconds.
        others: the same of other sites.
        share: site → training slices, of all sites.
        site: whose deadline.
        most_s: upper bound, and the deadline of a site about which nothing is known.

    Returns:
        ``SLACK`` times the slowest of its last rounds. A newcomer gets as much as the others' median at the same
        speed per slice, never less than theirs. Bounded by ``FEWEST_S`` and ``most_s``.
    """
    if own:
        expected = max(own[-LOOK_BACK:])
    else:
        known = {name: max(took[-LOOK_BACK:]) for name, took in others.items() if took and name != site}
        if not known:
            return most_s
        typical = median(known.values())
        slices = median(share[name] for name in known)
        expected = typical * max(1.0, share[site] / slices)
    return min(most_s, max(FEWEST_S, SLACK * expected))
