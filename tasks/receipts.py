"""A receipt for every update: what the raters saw, what it counted for and why, in numbers and in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import cast

from model.merge import merge_shares
from model.rating import MEAN, Finding, Findings, RatedWeight, RatingRule, rated_weights
from tasks.bank import Voice
from tasks.leave_out import Ingredients, inner_products, leave_out
from tasks.records import Aspect, Receipt, Seen, Spent, Without

NORMAL_95 = 1.96
"""Standard errors on either side of a 95 % interval."""
STRUCTURE_WORDS: dict[Aspect, str] = {"RV": "right ventricle", "MYO": "heart muscle", "LV": "left ventricle"}
UNSEEN = 0.005
"""Dice below which two decimals show nothing."""


@dataclass(frozen=True)
class Sender:
    """What a receipt says of the sender.

    Attributes:
        voice: passport of the update, and its age.
        train_slices: as invited.
        n_bytes: of the package.
        discount: factor of its volume, for its age; 1 for a fresh one.
    """

    voice: Voice
    train_slices: int
    n_bytes: int
    discount: float


@dataclass(frozen=True)
class Judgement:
    """What the raters made of one update.

    Attributes:
        findings: rater → aspect → finding.
        rated: what the rule makes of them.
        norm: Frobenius norm of the update.
    """

    findings: Mapping[str, Findings]
    rated: RatedWeight
    norm: float


def write_receipts(
    senders: Mapping[str, Sender],
    judged: Mapping[str, Judgement],
    used: Ingredients,
    rule: RatingRule,
    mode: str,
) -> tuple[Receipt, ...]:
    """A receipt per site, by name.

    Args:
        senders: site → who sent.
        judged: site → what was said of it.
        used: what the step was added up from.
        rule: of the rating.
        mode: of the merge: ``average``, ``shadow`` or ``rated``.

    Returns:
        Receipts with numbers and sentences; no blind name is in them.
    """
    shares, products = used.shares(), inner_products(used.updates)
    receipts = []
    for site in sorted(senders):
        without = leave_out(used, products, site)
        numbers = _receipt(senders[site], judged[site], used, shares[site], without, rule)
        full = merge_shares({**used.weights, site: 1.0}, used.volumes, used.form)[site]
        reason = explain(numbers, rule, mode, full, senders[site].discount)
        receipts.append(numbers.model_copy(update={"reason": reason}))
    return tuple(receipts)


def interval(finding: Finding) -> Seen:
    """A finding with its 95 % interval, cut to what a difference of Dice can be."""
    reach = NORMAL_95 * finding.error
    low, high = max(-1.0, finding.gain - reach), min(1.0, finding.gain + reach)
    return Seen(gain=round(finding.gain, 6), low=round(low, 6), high=round(high, 6))


def conceded_gains(findings: Mapping[str, Findings], rule: RatingRule) -> dict[Aspect, float]:
    """What nearly all raters concede in every aspect, whether or not it decided.

    Args:
        findings: rater → aspect → finding, of one candidate.
        rule: of the rating.

    Returns:
        Aspect → ``g``; one that no rater could measure is left out.
    """
    conceded: dict[Aspect, float] = {}
    for aspect in (MEAN, *STRUCTURE_WORDS):
        alone = {rater: {aspect: f[aspect]} for rater, f in findings.items() if aspect in f}
        gain = rated_weights({"": alone}, rule)[""].gain
        if gain is not None:
            conceded[cast(Aspect, aspect)] = round(gain, 6)
    return conceded


def _receipt(
    sender: Sender,
    judged: Judgement,
    used: Ingredients,
    share: float,
    without: Without | None,
    rule: RatingRule,
) -> Receipt:
    site, rated = sender.voice.update.site, judged.rated
    means = [found[MEAN].gain for found in judged.findings.values() if MEAN in found]
    return Receipt(
        site=site,
        train_slices=sender.train_slices,
        age=sender.voice.age,
        rank=max((f.rank for f in used.updates[site].values()), default=0),
        seen={
            rater: {cast(Aspect, aspect): interval(f) for aspect, f in found.items()}
            for rater, found in sorted(judged.findings.items())
        },
        gain=round(median(means), 6) if means else None,
        conceded=conceded_gains(judged.findings, rule),
        aspect=cast(Aspect, rated.aspect),
        reference=round(rated.reference, 6),
        penalty=round(rated.penalty, 6),
        rated_weight=round(rated.weight, 6),
        used_weight=round(used.weights[site], 6),
        share=round(share, 6),
        norm=round(judged.norm, 6),
        clipped_to=round(used.clips[site], 6),
        adapter_bytes=sender.n_bytes,
        spent=sender.voice.update.spent,
        without=without,
        reason="",
    )


def explain(receipt: Receipt, rule: RatingRule, mode: str, full_share: float, discount: float) -> str:
    """Why an update counted as it did, for an engineer to read.

    Args:
        receipt: its numbers.
        rule: of the rating.
        mode: of the merge.
        full_share: the share it would have had, had nothing spoken against it.
        discount: factor of its volume, for its age.

    Returns:
        Two to five sentences without names.
    """
    parts = [_rating_words(receipt, rule, mode)]
    shown = receipt.penalty > 0 and mode == "rated"
    if shown:
        parts[0] += f", so it makes {_percent(receipt.share)} of the step instead of {_percent(full_share)}."
    if receipt.age:
        rounds = "1 round" if receipt.age == 1 else f"{receipt.age} rounds"
        parts.append(f"It came {rounds} late and counts for {_percent(discount)} of its volume.")
    if receipt.clipped_to < 1:
        size = _percent(receipt.clipped_to)
        parts.append(f"Its changes were larger than the others' and were scaled down to {size}.")
    if receipt.spent:
        parts.append(_spent_words(receipt.spent))
    return " ".join([*parts, _without_words(receipt, shown)])


def _rating_words(receipt: Receipt, rule: RatingRule, mode: str) -> str:
    if mode == "average":
        return "Updates are not rated in this merge mode."
    if not receipt.seen:
        return "No site rated it, so nothing speaks against it."
    if receipt.penalty == 0:
        return f"{_count(receipt)} rated it{_range(receipt)}; {_mild(receipt, rule)}."
    said = f"{_count(receipt)} rated it. {_harm(receipt)}, more than {_forgiven(receipt, rule)}"
    if mode == "rated":
        return said
    return f"{said}, so its weight would be {receipt.rated_weight:.2f}; this merge mode does not apply it."


def _count(receipt: Receipt) -> str:
    n = len(receipt.seen)
    return "1 site" if n == 1 else f"{n} sites"


def _range(receipt: Receipt) -> str:
    gains = [_signed(found["mean"].gain) for found in _by_gain(receipt)]
    if not gains:
        return ""
    return f": {gains[0]} Dice" if gains[0] == gains[-1] else f": from {gains[0]} to {gains[-1]} Dice"


def _by_gain(receipt: Receipt) -> list[dict[Aspect, Seen]]:
    known = [found for found in receipt.seen.values() if "mean" in found]
    return sorted(known, key=lambda found: found["mean"].gain)


def _mild(receipt: Receipt, rule: RatingRule) -> str:
    """What stands against an update that is not penalised."""
    worst = min(receipt.conceded, key=lambda a: receipt.conceded[a], default=None)
    if worst is None or receipt.conceded[worst] > -UNSEEN:
        return "nothing speaks against it"
    lost, margin = -receipt.conceded[worst], rule.margin_of(worst)
    said = f"a loss of {lost:.2f} Dice{_where(worst)} is"
    if lost <= margin:
        return f"{said} small enough to be forgiven"
    return f"{said} forgiven because this round's usual update costs about as much"


def _harm(receipt: Receipt) -> str:
    """Who saw how large a loss, in the aspect that decided and in the one beside it."""
    decided, conceded = receipt.aspect, receipt.conceded
    beside = _beside(receipt)
    aspects = (decided,) if beside is None else (decided, beside)
    out = max(_dissenters(receipt, aspect) for aspect in aspects)
    n = sum(decided in found for found in receipt.seen.values())
    who = {1: "It", 2: "Both"}.get(n, "All") if out == 0 else f"All but {'one' if out == 1 else out}"
    said = f"{who} saw a loss of at least {-conceded[decided]:.2f} Dice{_where(decided)}"
    if beside is None:
        return said
    place = "over all structures" if beside == "mean" else f"in the {STRUCTURE_WORDS[beside]}"
    return f"{said} ({-conceded[beside]:.2f} {place})"


def _beside(receipt: Receipt) -> Aspect | None:
    """The worst structure beside the mean where it lost more, or the mean beside a structure if it lost at all."""
    conceded = receipt.conceded
    if receipt.aspect != "mean":
        return "mean" if conceded.get("mean", 0.0) < -UNSEEN else None
    worst = min(conceded, key=lambda a: conceded[a])
    return worst if conceded[worst] < conceded["mean"] - UNSEEN else None


def _dissenters(receipt: Receipt, aspect: Aspect) -> int:
    gains = [found[aspect].gain for found in receipt.seen.values() if aspect in found]
    return sum(gain > receipt.conceded[aspect] + 1e-6 for gain in gains)


def _forgiven(receipt: Receipt, rule: RatingRule) -> str:
    margin = rule.margin_of(receipt.aspect)
    said = f"the {margin - receipt.reference:.2f} that is forgiven"
    if receipt.reference > -UNSEEN:
        return said
    return f"{said} ({-receipt.reference:.2f} of it because this round's usual update costs as much)"


def _without_words(receipt: Receipt, shown: bool) -> str:
    """What the step were without it; ``shown`` when its share was said before."""
    lead = "Without" if shown else f"It makes {_percent(receipt.share)} of the step; without"
    without = receipt.without
    if without is None:
        return f"{lead} it there would be no step."
    if without.change is None:
        return "All updates together make no step."
    if without.change < 0.0005:
        return f"{lead} it the step {'is' if shown else 'would be'} the same."
    return f"{lead} it the step would be {_percent(without.change)} different."


def _spent_words(spent: Spent) -> str:
    n = "its one update" if spent.releases == 1 else f"its {spent.releases} updates so far"
    return (
        f"Noise hides whether its site took part: ε = {spent.epsilon:.3g} at δ = {spent.delta:.0e} over {n}."
    )


def _where(aspect: Aspect) -> str:
    return "" if aspect == "mean" else f" in the {STRUCTURE_WORDS[aspect]}"


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def _percent(value: float) -> str:
    if 0.0005 <= value < 0.01:
        return "less than 1\u00a0%"
    return f"{value:.0%}".replace("%", "\u00a0%")
