"""Whom a round cannot do without."""

from __future__ import annotations

from tasks.records import Candidates, Plan


def lacks_updates(plan: Plan, candidates: Candidates) -> bool:
    """Tell whether a round can do with the updates it has.

    Args:
        plan: of the round.
        candidates: as admitted so far.

    Returns:
        Whether its quorum or a required site's update is still lacking.
    """
    federation = plan.params.federation
    absent = {*candidates.missing, *(refusal.site for refusal in candidates.quarantined)}
    return len(candidates.candidates) < federation.quorum or not absent.isdisjoint(federation.required)
