"""The result of every phase in one line, for the log and the progress bar: numbers and names of sites only."""

from __future__ import annotations

from tasks.records import (
    Candidates,
    Close,
    Evaluation,
    FederationRecord,
    MergeRecord,
    Plan,
    Ratings,
    Update,
    Verdict,
)
from tasks.version import Versioned


def founded(federation: FederationRecord) -> str:
    """How many sites take part."""
    return f"federation of {len(federation.members)} sites"


def opened(plan: Plan) -> str:
    """Where the round starts from."""
    steps = ", ".join(str(step.round) for step in plan.steps[-3:])
    more = "… " if len(plan.steps) > 3 else ""
    start = f"the base and the steps of rounds {more}{steps}" if plan.steps else "the base"
    return f"round {plan.round}: {len(plan.members)} sites start from {start}"


def trained(update: Update) -> str:
    """Rank, bytes, what they carry, and loss or noise."""
    sent = f"{update.adapter_bytes / 1000:.0f} kB up with {1 - update.cut_energy:.0%} of the update's energy"
    loss = f", loss {update.curve[-1]:.3f}" if update.curve else ""
    noise = f", noise for ε = {update.spent.epsilon:.3g}" if update.spent else ""
    return f"{update.site}: rank {update.rank}, {sent}{loss}{noise}"


def admitted(record: Candidates) -> str:
    """Who is in, and who is not and why."""
    absent = f"; missing: {', '.join(record.missing)}" if record.missing else ""
    refused = "".join(f"; {q.site} quarantined: {q.reason}" for q in record.quarantined)
    return f"{len(record.candidates)} updates admitted{absent}{refused}"


def rated(ratings: Ratings) -> str:
    """How many candidates a site rated."""
    n = len(ratings.scores)
    return f"{ratings.site}: rated {n} candidate{'s' * (n != 1)}"


def merged(record: MergeRecord) -> str:
    """Every site's share of the step, who lost weight by rating, and the step's bytes."""
    lost = {r.site for r in record.receipts if r.penalty > 0 and r.used_weight < 1}
    shares = ", ".join(f"{r.site} {r.share:.0%}{' (harm)' * (r.site in lost)}" for r in record.receipts)
    step = f"{record.merged_bytes / 1000:.0f} kB down with {1 - record.cut_energy:.0%} of its energy"
    return f"merged: {shares}; a step of {step}"


def judged(verdict: Verdict) -> str:
    """What the merged step is worth to one site."""
    gain = verdict.gains["1.0"].gain
    worth = "of unknown worth" if gain is None else f"worth {gain:+.3f} Dice"
    return f"{verdict.site}: the merged step is {worth}"


def closed(close: Close) -> str:
    """How the round ended."""
    return f"round {close.round}: {close.reason}"


def adapted(evaluation: Evaluation) -> str:
    """How long a site adapted."""
    return f"{evaluation.site}: adapted in {evaluation.steps} steps"


def kept(versioned: Versioned) -> str:
    """The round's tag and size."""
    return f"{versioned.tag}: {versioned.files} files, {versioned.bytes / 1000:.0f} kB"
