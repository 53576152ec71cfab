"""From the updates of a round to one step: weighted, clipped, robust, or through a server's optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from model.clip import clip_updates
from model.factors import Adapter, Factors, factorise
from model.merge import merge_shares, merge_step
from model.methods.robust import coordinate_median, krum_update, trimmed_mean
from model.methods.server_optimizers import AdamState, MomentumState, adam_step, momentum_step
from tasks.study.cell import Weights
from tasks.study.local import dense
from tasks.study.sending import Sent
from tasks.study.trial import Trial

Merge = Literal["rated", "average", "plain", "paper", "median", "trimmed-mean", "krum", "fedavgm", "fedadam"]
"""``plain`` adds the updates by volume; ``average`` clips them and lets the sites judge the step, as the live
federation always does; ``rated`` rates them as well. The others are as their papers have them."""

OURS = ("rated", "average")
RATES = ("rated", "paper")
_ROBUST = ("median", "trimmed-mean", "krum")
FALSE_UPDATES = 1
"""How many the robust methods are told to expect; with five sites Krum can bear no more."""


@dataclass
class Server:
    """What a server's optimiser remembers."""

    momentum: MomentumState = field(default_factory=MomentumState)
    adam: AdamState = field(default_factory=AdamState)


def merge_sent(
    trial: Trial,
    weights: Weights,
    sent: Mapping[str, Sent],
    rated: Mapping[str, float],
    merge: Merge,
    server: Server,
) -> dict[str, Factors]:
    """One step from the updates of a round.

    Args:
        trial: the cell at work.
        weights: the model before the round.
        sent: site → update.
        rated: site → what rating made of it; 1 where nobody rates.
        merge: the rule.
        server: changed in place by the rules that remember.

    Returns:
        The step.

    Raises:
        RoundError: no updates, or fewer than a robust rule needs.
    """
    updates = {site: s.adapter for site, s in sent.items()}
    if merge in _ROBUST:
        return _factors(_robust(updates, weights, merge), trial)
    settings, shares = trial.params.merge, trial.shares(sorted(sent))
    volumes = {site: shares[site] * sent[site].discount for site in sent}
    coefficients = merge_shares(rated, volumes, "paper" if merge == "paper" else settings.form)
    if merge in OURS:
        clips = clip_updates(updates, settings.clip)
        coefficients = {site: c * clips[site] for site, c in coefficients.items()}
    step = merge_step(updates, coefficients)
    if merge not in ("fedavgm", "fedadam"):
        return step
    merged, rates = dense(step, weights), trial.params.study.server
    if merge == "fedavgm":
        server.momentum, moved = momentum_step(server.momentum, merged, rates.beta, rates.rate_momentum)
    else:
        server.adam, moved = adam_step(
            server.adam, merged, rates.rate_adam, rates.beta, rates.beta2, rates.tau
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
    return trimmed_mean(full, FALSE_UPDATES) if merge == "trimmed-mean" else krum_update(full, FALSE_UPDATES)


def _factors(step: Mapping[str, Tensor], trial: Trial) -> dict[str, Factors]:
    return {name: factorise(delta, trial.params.merge.rank_max)[0] for name, delta in step.items()}
