"""Who rates whom: every candidate by as many raters as every other, at a cost that grows linearly with the sites."""

from __future__ import annotations

import torch
from torch import Generator


def assign_raters(sites: list[str], raters: int, generator: Generator) -> dict[str, tuple[str, ...]]:
    """Give every site the candidates it rates.

    The sites stand in a random circle and each rates the next ``raters`` ones; so each candidate is rated, and each
    site rates, exactly ``min(raters, n − 1)`` times, and nobody rates itself.

    Args:
        sites: those present, in any order.
        raters: k, wanted raters per candidate, at least 1.
        generator: draws the circle.

    Returns:
        Rater → candidates, sorted; empty tuples for a lone site.
    """
    ordered = sorted(sites)
    circle = [ordered[i] for i in torch.randperm(len(ordered), generator=generator).tolist()]
    n = len(circle)
    k = min(raters, n - 1)
    return {
        rater: tuple(sorted(circle[(place + step) % n] for step in range(1, k + 1)))
        for place, rater in enumerate(circle)
    }
