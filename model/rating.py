"""Rate-My-LoRA's idea: an update that harms the others gets less weight (arXiv 2501.03223).

The paper does not give its weight function in full. What stands here is ours (docs/method.md): a penalty needs harm
that nearly all raters see, beyond the uncertainty of each. It is a free function of findings, so that another can
take its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from model.labels import STRUCTURES

MEAN = "mean"
"""Aspect of all structures together; the other aspects are single structures."""


@dataclass(frozen=True)
class Finding:
    """What one rater measured of one candidate in one aspect.

    Attributes:
        gain: Dice gained by adding the update alone, mean over the rater's cases.
        error: standard error of that mean over cases, at least 0.
    """

    gain: float
    error: float


Findings = Mapping[str, Finding]
"""Aspect → finding of one rater on one candidate."""


@dataclass(frozen=True)
class RatingRule:
    """When harm counts.

    Attributes:
        strictness: λ, per Dice.
        margin: Dice of the mean that is forgiven.
        margin_structure: Dice of a single structure that is forgiven.
        doubt: z, standard errors by which every rater's finding is moved in the candidate's favour, up to the margin.
        dissent: fraction of the raters whose view may be set aside in the candidate's disfavour.
    """

    strictness: float
    margin: float
    margin_structure: float
    doubt: float
    dissent: float

    def margin_of(self, aspect: str) -> float:
        """Dice that is forgiven in an aspect."""
        return self.margin if aspect == MEAN else self.margin_structure


@dataclass(frozen=True)
class RatedWeight:
    """What rating says of one candidate.

    Attributes:
        gain: g_c, the gain that the raters concede in the aspect that decided; None when nobody rated it.
        reference: ref, the typical conceded gain of this round in that aspect, never above 0.
        penalty: ``max(0, ref − margin − g_c)``, Dice.
        weight: ``exp(−λ · penalty)``, in (0, 1].
        aspect: ``mean`` or the structure that decided.
        raters: how many others found something that counts.
    """

    gain: float | None
    reference: float
    penalty: float
    weight: float
    aspect: str
    raters: int


def measure_gain(before: Tensor, after: Tensor, case: Tensor) -> Finding | None:
    """Mean gain over cases and its standard error; slices of one case are no independent evidence.

    Args:
        before: ``(n,)`` Dice per slice, NaN where undefined.
        after: ``(n,)``, same slices.
        case: ``(n,)`` the volume of every slice.

    Returns:
        The finding; a slice undefined on one side only counts as 1 there, since the empty answer was right. The
        error of a single case is that of its slices. None when no slice is defined on either side.
    """
    defined = ~(before.isnan() & after.isnan())
    change = (after.nan_to_num(1.0) - before.nan_to_num(1.0))[defined]
    if not len(change):
        return None
    named = case[defined]
    means = torch.stack([change[named == c].mean() for c in sorted(set(named.tolist()))])
    units = means if len(means) > 1 else change
    error = float(units.std() / math.sqrt(len(units))) if len(units) > 1 else 0.0
    return Finding(float(means.mean()), error)


def measure_aspects(before: Tensor, after: Tensor, case: Tensor) -> dict[str, Finding]:
    """Findings on the mean of the structures and on each of them.

    Args:
        before: ``(n, 3)`` Dice per slice and structure, NaN where undefined.
        after: ``(n, 3)``, same slices.
        case: ``(n,)`` the volume of every slice.

    Returns:
        Aspect → finding; an aspect that no slice defines is left out.
    """
    found = {MEAN: measure_gain(before.nanmean(1), after.nanmean(1), case)}
    for k, structure in enumerate(STRUCTURES):
        found[structure] = measure_gain(before[:, k], after[:, k], case)
    return {aspect: finding for aspect, finding in found.items() if finding is not None}


def rated_weights(findings: Mapping[str, Mapping[str, Findings]], rule: RatingRule) -> dict[str, RatedWeight]:
    """Weight per candidate from what the *other* sites found.

    In every aspect a, rater s concedes ``u = gain + min(z · error, margin_a)``: a doubt cannot excuse more than the
    margin does. The most favourable ``max(1, ⌊q k⌋)`` of k raters are set aside (none of fewer than three), and g_c
    is the most that the rest concede: harm counts only as far as nearly all raters see it, and one friend cannot
    hide it. With ``ref = min(0, median_c g_c)``, where a candidate without findings in the aspect counts as 0,
    ``w_c = exp(−λ · max_a max(0, ref − margin_a − g_c))``.

    Args:
        findings: candidate site → rater site → aspect → finding; a rating of oneself is ignored, since a site is
            blind to its own faults, and so is one that is NaN or infinite.
        rule: when harm counts.

    Returns:
        One entry per candidate; a candidate that nobody rated has no gain and weight 1, because there is no
        evidence against it.

    Source: idea, Rate-My-LoRA section 3; formula ours.
    """
    aspects = sorted({a for rated in findings.values() for found in rated.values() for a in found} | {MEAN})
    conceded = {a: {c: _conceded(c, rated, a, rule) for c, rated in findings.items()} for a in aspects}
    reference = {a: _reference(found.values()) for a, found in conceded.items()}
    counts = {
        c: sum(r != c and any(map(_is_finite, found.values())) for r, found in rated.items())
        for c, rated in findings.items()
    }
    return {c: _weigh({a: conceded[a][c] for a in aspects}, reference, counts[c], rule) for c in findings}


def _conceded(candidate: str, rated: Mapping[str, Findings], aspect: str, rule: RatingRule) -> float | None:
    upper = sorted(
        (
            found[aspect].gain + min(rule.doubt * found[aspect].error, rule.margin_of(aspect))
            for rater, found in rated.items()
            if rater != candidate and aspect in found and _is_finite(found[aspect])
        ),
        reverse=True,
    )
    if not upper:
        return None
    aside = max(1, int(rule.dissent * len(upper))) if len(upper) > 2 else 0
    return upper[aside]


def _is_finite(finding: Finding) -> bool:
    return math.isfinite(finding.gain) and math.isfinite(finding.error)


def _reference(conceded: Iterable[float | None]) -> float:
    return min(0.0, median([g or 0.0 for g in conceded] or [0.0]))


def _weigh(
    conceded: Mapping[str, float | None], reference: Mapping[str, float], raters: int, rule: RatingRule
) -> RatedWeight:
    penalties = {
        a: max(0.0, reference[a] - rule.margin_of(a) - g) for a, g in conceded.items() if g is not None
    }
    worst = max(penalties, key=lambda a: (penalties[a], a == MEAN), default=MEAN)
    penalty = penalties.get(worst, 0.0)
    weight = math.exp(-rule.strictness * penalty)
    return RatedWeight(conceded.get(worst), reference[worst], penalty, weight, worst, raters)
