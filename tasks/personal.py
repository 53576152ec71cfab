"""How much of a personal update a site keeps: the fraction its own validation cases like best, possibly none."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from model.factors import Adapter, Factors, fold

FRACTIONS = (0.0, 0.25, 0.5, 1.0)


def keep_helpful(
    start: Mapping[str, Tensor], update: Adapter, dice: Callable[[dict[str, Tensor]], float]
) -> tuple[dict[str, Factors], float]:
    """Shorten a personal update to what helps.

    An epoch on a handful of patients can cost more than it gives; a scanner unlike the others' can need all of it.
    The site finds out on its own validation cases.

    Args:
        start: the closed global model.
        update: of one epoch on the site's training cases.
        dice: mean Dice of a model on the site's validation cases.

    Returns:
        The update times the best of 0, ¼, ½ and 1, the smallest of equals, and that fraction.
    """
    scores = {fraction: dice(fold(start, update, fraction)) for fraction in FRACTIONS}
    best = max(FRACTIONS, key=lambda fraction: (scores[fraction], -fraction))
    return {name: Factors(best * f.B, f.A) for name, f in update.items()}, best
