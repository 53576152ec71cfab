"""Methods that send one update per round and fold the merged step into the model: ours, and its rivals.

This is the protocol of the live federation without its ledger: train, compress, rate, merge, judge, publish.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import pandas as pd
from torch import Tensor

from model.assign import assign_raters
from model.attacks import lying_gains
from model.factors import Adapter, Factors, fold, sum_adapters
from model.judge import FRACTIONS, accepted_fraction
from model.methods.rate_my_lora import paper_weights
from model.rating import MEAN, Finding, Findings, measure_aspects, rated_weights
from model.seeds import derive_generator
from tasks.packing import pack_parcel
from tasks.rating_rule import rating_rule
from tasks.study.cell import Weights
from tasks.study.merging import OURS, RATES, Merge, Server, merge_sent
from tasks.study.sending import Sent, send_up_projection, send_update
from tasks.study.trial import Trial


@dataclass
class _Memory:
    """What lasts from round to round."""

    weights: Weights
    scores: dict[str, Tensor]
    carry: dict[str, Factors] = field(default_factory=dict)
    residuals: dict[str, dict[str, Factors]] = field(default_factory=dict)
    bank: dict[str, Sent] = field(default_factory=dict)
    last_step: Adapter | None = None
    server: Server = field(default_factory=Server)
    gains: list[dict[str, object]] = field(default_factory=list)


def run_steps(
    trial: Trial, merge: Merge, shared_down: bool = False
) -> tuple[dict[str, Weights], pd.DataFrame]:
    """All rounds of one method.

    Args:
        trial: the cell at work.
        merge: how updates become a step.
        shared_down: A comes from the round's seed, is the same everywhere, is not trained and does not travel.

    Returns:
        ``global`` → weights, and the gains that raters measured.
    """
    memory = _Memory(trial.base, {site: trial.validate(trial.base, site) for site in trial.sites})
    for number in range(1, trial.params.federation.rounds + 1):
        fresh = _train_present(trial, memory, number, shared_down)
        arrived = _arrived(trial, memory, fresh)
        asked = _asked(trial, arrived, number) if merge in RATES else {}
        rated = _rate_all(trial, memory, arrived, asked, merge, number)
        step = merge_sent(trial, memory.weights, arrived, rated, merge, memory.server)
        down = _publish(trial, memory, step, judged=merge in OURS)
        for site in trial.sites:
            up = fresh[site].n_bytes if site in fresh else 0
            candidates = sum(arrived[c].n_bytes for c in asked.get(site, ()))
            weight = rated.get(site, float("nan"))
            trial.note(number, site, memory.scores[site], up, down + candidates, weight)
    return {"global": memory.weights}, pd.DataFrame(memory.gains)


def _train_present(trial: Trial, memory: _Memory, number: int, shared_down: bool) -> dict[str, Sent]:
    """What everyone who is there uploads in this round."""
    away = set(trial.places(trial.scenario.absent)) if number % 2 == 1 else set()
    fresh = {}
    for site in trial.sites:
        if site in away:
            continue
        rest = memory.residuals.get(site, {})
        if shared_down:
            fresh[site] = send_up_projection(trial, site, memory.weights, rest, number)
        else:
            fresh[site] = send_update(trial, site, memory.weights, rest, memory.last_step, number)
        memory.residuals[site] = fresh[site].rest
    return fresh


def _arrived(trial: Trial, memory: _Memory, fresh: Mapping[str, Sent]) -> dict[str, Sent]:
    """What the hub merges in this round: of the late, their upload of the round before."""
    late = set(trial.places(trial.scenario.late))
    aged = {
        site: replace(sent, discount=trial.params.merge.late_discount) for site, sent in memory.bank.items()
    }
    memory.bank = {site: sent for site, sent in fresh.items() if site in late}
    return {site: sent for site, sent in fresh.items() if site not in late} | aged


def _asked(trial: Trial, arrived: Mapping[str, Sent], number: int) -> dict[str, tuple[str, ...]]:
    """Rater → candidates."""
    generator = derive_generator(trial.seed, "raters", number)
    return assign_raters(sorted(arrived), trial.params.rating.raters, generator)


def _rate_all(
    trial: Trial,
    memory: _Memory,
    arrived: Mapping[str, Sent],
    asked: Mapping[str, tuple[str, ...]],
    merge: Merge,
    number: int,
) -> dict[str, float]:
    """What rating makes of the updates; 1 for all where the method does not rate."""
    if merge not in RATES:
        return dict.fromkeys(arrived, 1.0)
    findings: dict[str, dict[str, Findings]] = {site: {} for site in arrived}
    for rater, candidates in asked.items():
        seen = {c: _rate(trial, memory, arrived[c].adapter, rater) for c in candidates}
        for candidate, found in _told(trial, rater, seen).items():
            findings[candidate][rater] = found
            memory.gains += [
                {"round": number, "candidate": candidate, "rater": rater, "aspect": aspect} | asdict(finding)
                for aspect, finding in found.items()
            ]
    if merge == "paper":
        gains = {
            c: {rater: found[MEAN].gain for rater, found in f.items() if MEAN in found}
            for c, f in findings.items()
        }
        return paper_weights(gains, trial.params.study.paper_strictness)
    return {c: r.weight for c, r in rated_weights(findings, rating_rule(trial.params.rating)).items()}


def _rate(trial: Trial, memory: _Memory, candidate: Adapter, rater: str) -> dict[str, Finding]:
    after = trial.validate(fold(memory.weights, candidate), rater)
    return measure_aspects(memory.scores[rater], after, trial.members[rater].panel.case)


def _told(trial: Trial, rater: str, seen: dict[str, dict[str, Finding]]) -> dict[str, dict[str, Finding]]:
    """What the rater says it saw."""
    liars = trial.places(trial.scenario.raters)
    if trial.scenario.rater_fault != "liar" or rater not in liars:
        return seen
    lies = lying_gains({c: found[MEAN].gain for c, found in seen.items() if MEAN in found}, liars)
    return {c: dict.fromkeys(seen[c], Finding(lie, 0.0)) for c, lie in lies.items()}


def _publish(trial: Trial, memory: _Memory, step: Adapter, judged: bool) -> int:
    """Compress the step, let the sites judge it where they do, fold what is accepted, carry over what was cut."""
    params = trial.params
    package = params.package
    parcel = pack_parcel(step, memory.carry, package, package.download_bytes, params.merge.rank_max)
    for fraction in (*FRACTIONS, 0.0):
        weights = fold(memory.weights, parcel.decoded, fraction)
        scores = {site: trial.validate(weights, site) for site in trial.sites}
        gains = {site: _mean(scores[site]) - _mean(memory.scores[site]) for site in trial.sites}
        if not judged or accepted_fraction({fraction: gains}, params.judge.tolerance):
            break
    if fraction > 0:
        memory.carry = sum_adapters([(fraction, parcel.rest), (1 - fraction, memory.carry)])
        memory.last_step = {name: Factors(fraction * f.B, f.A) for name, f in parcel.decoded.items()}
    memory.weights, memory.scores = weights, scores
    return len(parcel.data)


def _mean(scores: Tensor) -> float:
    return float(scores.nanmean(1).nanmean())
