"""Methods that send one update per round and fold the merged step into the model: ours, and its rivals.

This is the protocol of the live federation without its ledger: train, compress, rate, merge, judge, publish.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from model.assign import assign_raters
from model.attacks import UPDATE_ATTACKS, lying_gains
from model.factors import Adapter, Factors, factorise, fold
from model.judge import FRACTIONS
from model.merge import clip_factors, merge_shares, merge_step, update_norms
from model.methods.rate_my_lora import paper_weights
from model.methods.robust import coordinate_median, krum_update, trimmed_mean
from model.methods.server_optimizers import AdamState, MomentumState, adam_step, momentum_step
from model.rating import MEAN, Finding, Findings, measure_aspects, rated_weights
from model.seeds import derive_generator, derive_seed
from tasks.packing import pack_parcel
from tasks.rating_rule import rating_rule
from tasks.study.cell import Weights
from tasks.study.local import dense, fresh_pairs, train_adapter, train_pairs
from tasks.study.trial import Trial

Merge = Literal["average", "rated", "paper", "median", "trimmed-mean", "krum", "fedavgm", "fedadam"]


@dataclass
class _Memory:
    """What lasts from round to round."""

    weights: Weights
    carry: dict[str, Factors] = field(default_factory=dict)
    residuals: dict[str, dict[str, Factors]] = field(default_factory=dict)
    bank: dict[str, Adapter] = field(default_factory=dict)
    last_step: Adapter | None = None
    momentum: MomentumState = field(default_factory=MomentumState)
    adam: AdamState = field(default_factory=AdamState)
    scores: dict[str, Tensor] = field(default_factory=dict)
    gains: list[dict[str, object]] = field(default_factory=list)


@dataclass(frozen=True)
class _Sent:
    """One update as the hub receives it."""

    adapter: Adapter
    n_bytes: int
    discount: float = 1.0


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
    memory = _Memory(trial.base)
    memory.scores = {site: trial.validate(trial.base, site) for site in trial.sites}
    for number in range(1, trial.params.federation.rounds + 1):
        sent = _collect(trial, memory, number, shared_down)
        weights = _weights(trial, memory, sent, merge, number)
        step = _step(trial, memory, sent, weights, merge)
        down = _publish(trial, memory, step)
        for site in trial.sites:
            up = sent[site].n_bytes if site in sent else 0
            trial.note(number, site, memory.scores[site], up, down, weights.get(site, float("nan")))
    return {"global": memory.weights}, pd.DataFrame(memory.gains)


def _collect(trial: Trial, memory: _Memory, number: int, shared_down: bool) -> dict[str, _Sent]:
    """Updates that arrive in this round: from everyone present, those of the late from the round before."""
    away = set(trial.places(trial.scenario.absent)) if number % 2 == 1 else set()
    late = set(trial.places(trial.scenario.late))
    arrived = {}
    for site in trial.sites:
        if site in away:
            continue
        fresh = (_train_up if shared_down else _train)(trial, memory, site, number)
        if site not in late:
            arrived[site] = fresh
            continue
        if site in memory.bank:
            arrived[site] = _Sent(memory.bank[site], fresh.n_bytes, trial.params.merge.late_discount)
        memory.bank[site] = fresh.adapter
    return arrived


def _train(trial: Trial, memory: _Memory, site: str, number: int) -> _Sent:
    params, spec = trial.params, trial.spec(site)
    slices, seed = trial.members[site].train, derive_seed(trial.seed, site, number)
    update: Adapter = train_adapter(params, slices, memory.weights, spec, params.training.steps, seed)
    attack = UPDATE_ATTACKS.get(trial.scenario.attack)
    if attack is not None and site in trial.places(trial.scenario.attackers):
        update = attack(update, memory.last_step, derive_generator(seed, "attack"))
    package, rest = params.package, memory.residuals.get(site, {})
    parcel = pack_parcel(update, rest, package, package.upload_bytes, params.merge.rank_max)
    memory.residuals[site] = parcel.rest
    return _Sent(parcel.decoded, len(parcel.data))


def _train_up(trial: Trial, memory: _Memory, site: str, number: int) -> _Sent:
    """As :func:`_train` with A from the round's seed; B travels in its own small basis, whole layers as always.

    A of the next round is another one, so what was cut of a B is not carried over.
    """
    params, spec = trial.params, replace(trial.spec(site), rank=trial.params.lora.rank_max)
    slices, seed = trial.members[site].train, derive_seed(trial.seed, site, number)
    pairs = fresh_pairs(params, memory.weights, spec, derive_seed(trial.seed, "shared A", number))
    end = train_pairs(params, slices, memory.weights, spec, seed, pairs, freeze_down=True)
    coded = {name: Factors(f.B, torch.eye(f.rank, dtype=f.B.dtype)) for name, f in end.pairs.items()}
    for name, W in end.whole.items():
        coded[name] = factorise(W - memory.weights[name], W.shape[0])[0]
    package, rest = params.package, memory.residuals.get(site, {})
    parcel = pack_parcel(coded, rest, package, package.upload_bytes, params.merge.rank_max)
    memory.residuals[site] = {name: f for name, f in parcel.rest.items() if name not in pairs}
    decoded = {
        name: Factors(f.B, f.A @ pairs[name].A.float()) if name in pairs else f
        for name, f in parcel.decoded.items()
    }
    return _Sent(decoded, len(parcel.data))


def _weights(
    trial: Trial, memory: _Memory, sent: Mapping[str, _Sent], merge: Merge, number: int
) -> dict[str, float]:
    """What rating makes of the updates; 1 for all where the method does not rate."""
    if merge not in ("rated", "paper"):
        return dict.fromkeys(sent, 1.0)
    findings: dict[str, dict[str, Findings]] = {site: {} for site in sent}
    generator = derive_generator(trial.seed, "raters", number)
    for rater, candidates in assign_raters(sorted(sent), trial.params.rating.raters, generator).items():
        seen = {c: _rate(trial, memory, sent[c].adapter, rater) for c in candidates}
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


def _step(
    trial: Trial, memory: _Memory, sent: Mapping[str, _Sent], weights: Mapping[str, float], merge: Merge
) -> dict[str, Factors]:
    updates = {site: s.adapter for site, s in sent.items()}
    shares = trial.shares(sorted(sent))
    volumes = {site: shares[site] * sent[site].discount for site in sent}
    if merge in ("median", "trimmed-mean", "krum"):
        return _factors(_robust(updates, memory.weights, merge), trial)
    settings = trial.params.merge
    form = "paper" if merge == "paper" else settings.form
    coefficients = merge_shares(weights, volumes, form)
    if merge == "rated":
        clips = clip_factors(update_norms(updates), settings.clip)
        coefficients = {site: c * clips[site] for site, c in coefficients.items()}
    step = merge_step(updates, coefficients)
    if merge not in ("fedavgm", "fedadam"):
        return step
    merged = dense(step, memory.weights)
    server = trial.params.study.server
    if merge == "fedavgm":
        memory.momentum, moved = momentum_step(memory.momentum, merged, server.beta, server.rate_momentum)
    else:
        memory.adam, moved = adam_step(
            memory.adam, merged, server.rate_adam, server.beta, server.beta2, server.tau
        )
    return _factors(moved, trial)


def _robust(updates: Mapping[str, Adapter], weights: Weights, merge: Merge) -> dict[str, Tensor]:
    layers = sorted({name for update in updates.values() for name in update})
    full = {
        site: {
            name: dense({name: update[name]}, weights)[name]
            if name in update
            else torch.zeros(weights[name].shape, dtype=torch.float64)
            for name in layers
        }
        for site, update in updates.items()
    }
    if merge == "median":
        return coordinate_median(full)
    return trimmed_mean(full, 1) if merge == "trimmed-mean" else krum_update(full, 1)


def _factors(step: Mapping[str, Tensor], trial: Trial) -> dict[str, Factors]:
    return {name: factorise(delta, trial.params.merge.rank_max)[0] for name, delta in step.items()}


def _publish(trial: Trial, memory: _Memory, step: Adapter) -> int:
    """Compress the step, let the sites judge it, fold what they accept, carry over what was cut."""
    params = trial.params
    package = params.package
    parcel = pack_parcel(step, memory.carry, package, package.download_bytes, params.merge.rank_max)
    for fraction in (*FRACTIONS, 0.0):
        weights = fold(memory.weights, parcel.decoded, fraction)
        scores = {site: trial.validate(weights, site) for site in trial.sites}
        gains = sorted(
            float(scores[s].nanmean(1).nanmean() - memory.scores[s].nanmean(1).nanmean()) for s in trial.sites
        )
        if fraction == 0.0 or gains[len(gains) // 2] >= -params.judge.tolerance:
            break
    if fraction > 0:
        memory.carry = {name: Factors(fraction * f.B, f.A) for name, f in parcel.rest.items()}
    memory.weights, memory.scores, memory.last_step = weights, scores, parcel.decoded
    return len(parcel.data)
