"""Methods that send whole networks: FedAvg, FedProx, FedCE; and the models that are trained without a federation."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.average import average_weights
from model.factors import fold
from model.methods.fedce import (
    contribution_weights,
    gradient_contribution,
    leave_one_out_mean,
    mean_over_rounds,
)
from model.seeds import derive_seed
from tasks.slices import join_slices
from tasks.study.cell import Weights
from tasks.study.local import train_weights
from tasks.study.trial import Trial

FULL_DTYPE_BYTES = 4


def run_zero_shot(trial: Trial) -> dict[str, Weights]:
    """The base as it is."""
    for site in trial.sites:
        trial.note(1, site, trial.validate(trial.base, site), 0, 0)
    return {"global": trial.base}


def run_alone(trial: Trial, lora: bool) -> dict[str, Weights]:
    """Every site for itself: its own adapters folded round after round, or full weights."""
    return {site: _alone(trial, site, lora) for site in trial.sites}


def _alone(trial: Trial, site: str, lora: bool) -> Weights:
    weights, params, train = trial.base, trial.params, trial.members[site].train
    for number in range(1, params.federation.rounds + 1):
        seed = derive_seed(trial.seed, site, number, "alone")
        if lora:
            weights = fold(weights, trial.train(site, weights, params.training.steps, seed))
        else:
            weights = train_weights(params, train, weights, params.training.steps, seed)
        trial.note(number, site, trial.validate(weights, site), 0, 0)
    return weights


def run_pooled(trial: Trial) -> dict[str, Weights]:
    """One network on all sites' data together, with the steps of all sites together: what privacy forbids."""
    weights, params = trial.base, trial.params
    everything = join_slices([trial.members[site].train for site in trial.sites])
    steps = params.training.steps * len(trial.sites)
    for number in range(1, params.federation.rounds + 1):
        seed = derive_seed(trial.seed, "pooled", number)
        weights = train_weights(params, everything, weights, steps, seed)
        for site in trial.sites:
            trial.note(number, site, trial.validate(weights, site), 0, 0)
    return {"global": weights}


def run_fedavg(trial: Trial, proximal: float = 0.0) -> dict[str, Weights]:
    """FedAvg; with ``proximal`` above 0 FedProx."""
    weights, shares = trial.base, trial.shares(trial.sites)
    for number in range(1, trial.params.federation.rounds + 1):
        weights = average_weights(_train_all(trial, weights, number, proximal), shares)
        _note_all(trial, weights, number)
    return {"global": weights}


@dataclass
class _Contributions:
    gradient: list[dict[str, float]] = field(default_factory=list)
    error: list[dict[str, float]] = field(default_factory=list)


def run_fedce(trial: Trial) -> dict[str, Weights]:
    """FedCE: shares from the direction of every update and from the error of the model made without it."""
    weights, shares, seen = trial.base, trial.shares(trial.sites), _Contributions()
    for number in range(1, trial.params.federation.rounds + 1):
        trained = _train_all(trial, weights, number, 0.0)
        updates = {
            site: {name: W.double() - weights[name].double() for name, W in trained[site].items()}
            for site in trained
        }
        seen.gradient.append(gradient_contribution(updates, shares))
        seen.error.append({site: _error_without(trial, trained, shares, site) for site in trained})
        weights = average_weights(trained, shares)
        shares = contribution_weights(mean_over_rounds(seen.gradient), mean_over_rounds(seen.error))
        _note_all(trial, weights, number)
    return {"global": weights}


def _error_without(trial: Trial, trained: dict[str, Weights], shares: dict[str, float], site: str) -> float:
    without = {name: W.float() for name, W in leave_one_out_mean(trained, shares, site).items()}
    return 1.0 - float(trial.validate(without, site).nanmean(1).nanmean())


def _train_all(trial: Trial, weights: Weights, number: int, proximal: float) -> dict[str, Weights]:
    steps = trial.params.training.steps
    return {
        site: train_weights(
            trial.params,
            trial.members[site].train,
            weights,
            steps,
            derive_seed(trial.seed, site, number),
            proximal,
        )
        for site in trial.sites
    }


def _note_all(trial: Trial, weights: Weights, number: int) -> None:
    size = FULL_DTYPE_BYTES * sum(W.numel() for W in weights.values())
    for site in trial.sites:
        trial.note(number, site, trial.validate(weights, site), size, size)
