"""Rate-My-LoRA as we read the paper: the mean harm to the others, and a denominator that knows no weights."""

from __future__ import annotations

import math
from collections.abc import Mapping


def paper_weights(gains: Mapping[str, Mapping[str, float]], strictness: float) -> dict[str, float]:
    """``w_c = exp(−λ · max(0, −mean_{s≠c} gain[s, c]))``.

    Args:
        gains: candidate site → rater site → Dice gain on the rater's validation slices; a rating of oneself is
            ignored.
        strictness: λ, per Dice.

    Returns:
        Candidate → weight in (0, 1]; 1 for a candidate that nobody rated. They go into
        :func:`model.merge.merge_shares` with the form ``paper``.

    Source: arXiv 2501.03223, section 3: a site's factors are penalised by the drop they cause on the other sites'
        validation data. The function of the drop is not public in full; the exponential is our reading.
    """
    weights = {}
    for candidate, rated in gains.items():
        others = [gain for rater, gain in rated.items() if rater != candidate]
        drop = max(0.0, -math.fsum(others) / len(others)) if others else 0.0
        weights[candidate] = math.exp(-strictness * drop)
    return weights
