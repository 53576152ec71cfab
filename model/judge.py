"""The safety net after the merge: the sites score the merged step, whole, halved and quartered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median_low

FRACTIONS = (1.0, 0.5, 0.25)


def accepted_fraction(gains: Mapping[float, Mapping[str, float]], tolerance: float) -> float:
    """The largest fraction of the step that does not cost the median site more than ``tolerance`` Dice.

    Of an even number of sites the lower of the middle two decides, so that one of two cannot outbid the other's harm.

    Args:
        gains: fraction → site → Dice gained over the model before the round, on the site's validation slices; a
            NaN or infinite vote is none.
        tolerance: Dice.

    Returns:
        1, ½ or ¼; 0 when even a quarter harms, or when nobody judged: an unseen step is not published.
    """
    for fraction in FRACTIONS:
        votes = [gain for gain in gains.get(fraction, {}).values() if math.isfinite(gain)]
        if votes and median_low(votes) >= -tolerance:
            return fraction
    return 0.0
