"""Rate-My-LoRA's idea: an update that harms the others gets less weight (arXiv 2501.03223).

The paper does not give its weight function in full; the exponential below is ours (docs/protocol.md). It is a free
function of gains, so that another can take its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class RatedWeight:
    """What rating says of one candidate.

    Attributes:
        gain: g_c, median over raters of the Dice gained by adding the update alone; None when nobody rated it.
        reference: ref, the typical gain of this round, never above 0.
        penalty: ``max(0, ref − margin − g_c)``, Dice.
        weight: ``exp(−λ · penalty)``, in (0, 1].
    """

    gain: float | None
    reference: float
    penalty: float
    weight: float


def rated_weights(
    gains: Mapping[str, Mapping[str, float]], strictness: float, margin: float
) -> dict[str, RatedWeight]:
    """Weight per candidate from the gains that the *other* sites measured.

    ``g_c = median_{s≠c} gain[s, c]``, ``ref = min(0, median_c g_c)``,
    ``w_c = exp(−λ · max(0, ref − margin − g_c))``.

    Args:
        gains: candidate site → rater site → Dice gain on the rater's validation slices; a rating of oneself is
            ignored, since a site is blind to its own faults, and so is one that is NaN or infinite: it would
            otherwise turn every comparison false and the penalty off.
        strictness: λ, per Dice.
        margin: Dice that is forgiven.

    Returns:
        One entry per candidate; a candidate that nobody rated has no gain and weight 1, because there is no
        evidence against it.

    Source: idea, Rate-My-LoRA section 3; formula ours.
    """
    typical = {c: _median_of_others(c, rated) for c, rated in gains.items()}
    known = [g for g in typical.values() if g is not None]
    reference = min(0.0, median(known)) if known else 0.0
    return {c: _weigh(g, reference, strictness, margin) for c, g in typical.items()}


def _median_of_others(candidate: str, rated: Mapping[str, float]) -> float | None:
    others = [g for rater, g in rated.items() if rater != candidate and math.isfinite(g)]
    return median(others) if others else None


def _weigh(gain: float | None, reference: float, strictness: float, margin: float) -> RatedWeight:
    penalty = 0.0 if gain is None else max(0.0, reference - margin - gain)
    return RatedWeight(gain, reference, penalty, math.exp(-strictness * penalty))
