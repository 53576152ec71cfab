"""How long every site took for every phase of the rounds so far, by the store's clock."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from tasks.ledger import round_prefix, site_round_prefix
from tasks.store import Store

SitePhase = Literal["train", "rate", "judge", "adapt"]

ASKED = {"train": "plan.json", "rate": "candidates.json", "judge": "merge.json", "adapt": "close.json"}
"""Phase → the hub's object that starts it."""
ANSWER = {
    "train": "update.json",
    "rate": "ratings.json",
    "judge": "verdict.json",
    "adapt": "evaluation.json",
}
"""Phase → the site's object that ends it."""


def past_durations(
    store: Store, sites: Iterable[str], phase: SitePhase, rounds: Iterable[int]
) -> dict[str, list[float]]:
    """Seconds between question and answer.

    Args:
        store: the ledger.
        sites: whose.
        phase: of a round.
        rounds: in order.

    Returns:
        Site → seconds per round in which it answered after it was asked; an answer older than the question, which a
        question asked anew leaves behind, does not count.
    """
    took: dict[str, list[float]] = {site: [] for site in sites}
    for number in rounds:
        asked = written(store, round_prefix(number)).get(ASKED[phase])
        if asked is None:
            continue
        for site, list_of in took.items():
            answered = written(store, site_round_prefix(site, number)).get(ANSWER[phase])
            if answered is not None and answered >= asked:
                list_of.append((answered - asked).total_seconds())
    return took


def written(store: Store, prefix: str) -> dict[str, datetime]:
    """Name below the prefix → when it was last written."""
    return {info.key.removeprefix(prefix): info.modified for info in store.list(prefix)}
