"""The rating rule as the settings give it."""

from __future__ import annotations

from model.rating import RatingRule
from tasks.settings import Rating


def rating_rule(rating: Rating) -> RatingRule:
    """When harm counts, under these settings."""
    return RatingRule(
        strictness=rating.strictness,
        margin=rating.margin,
        margin_structure=rating.margin_structure,
        doubt=rating.doubt,
        dissent=rating.dissent,
    )
