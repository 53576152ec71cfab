"""Optimisers on the hub: the merged update is a pseudo-gradient, and the step is made from its history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.errors import ConfigError, ShapeError


@dataclass(frozen=True, eq=False)
class MomentumState:
    """What FedAvgM remembers.

    Attributes:
        velocity: layer → float64 running sum of updates; empty before the first round, which means zero.
    """

    velocity: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class AdamState:
    """What FedAdam remembers; empty before the first round.

    Attributes:
        first: layer → float64 running mean of updates, from zero.
        second: layer → float64 running mean of their squares, from τ².
    """

    first: Mapping[str, Tensor] = field(default_factory=dict)
    second: Mapping[str, Tensor] = field(default_factory=dict)


def momentum_step(
    state: MomentumState, merged: Mapping[str, Tensor], beta: float, rate: float
) -> tuple[MomentumState, dict[str, Tensor]]:
    """FedAvgM: ``v_t = β v_{t−1} + Δ_t``, step ``η v_t``; ``β = 0``, ``η = 1`` is plain averaging.

    Args:
        state: of the round before.
        merged: layer → Δ_t, the averaged update (new minus old weights); the same layers every round.
        beta: β in [0, 1).
        rate: server learning rate η.

    Returns:
        The next state, and layer → float64 step to add to the weights.

    Raises:
        ConfigError: beta or rate out of bounds.
        ShapeError: layers or shapes differ from those of the state.

    Source: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
        Classification", 2019. The sign is that of a weight change, so the step is added.
    """
    _check_decay("beta", beta)
    _check_positive("rate", rate)
    _check_same(state.velocity, merged)
    zero = torch.zeros((), dtype=torch.float64)
    velocity = {
        name: beta * state.velocity.get(name, zero) + merged[name].double() for name in sorted(merged)
    }
    return MomentumState(velocity), {name: rate * v for name, v in velocity.items()}


def adam_step(
    state: AdamState, merged: Mapping[str, Tensor], rate: float, beta1: float, beta2: float, tau: float
) -> tuple[AdamState, dict[str, Tensor]]:
    """FedAdam: ``m = β₁ m + (1−β₁) Δ``, ``v = β₂ v + (1−β₂) Δ²``, step ``η m / (√v + τ)``; no bias correction.

    Args:
        state: of the round before.
        merged: layer → Δ_t, the averaged update (new minus old weights); the same layers every round.
        rate: server learning rate η.
        beta1: β₁ in [0, 1).
        beta2: β₂ in [0, 1).
        tau: τ, degree of adaptivity, positive.

    Returns:
        The next state, and layer → float64 step to add to the weights.

    Raises:
        ConfigError: a setting is out of bounds.
        ShapeError: layers or shapes differ from those of the state.

    Source: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2. It asks for ``v_{−1} ≥ τ²``
        and leaves the value open: here it is τ².
    """
    for name, decay in (("beta1", beta1), ("beta2", beta2)):
        _check_decay(name, decay)
    for name, value in (("rate", rate), ("tau", tau)):
        _check_positive(name, value)
    _check_same(state.first, merged)
    zero, floor = (torch.tensor(value, dtype=torch.float64) for value in (0.0, tau**2))
    deltas = {name: merged[name].double() for name in sorted(merged)}
    first = {n: beta1 * state.first.get(n, zero) + (1 - beta1) * d for n, d in deltas.items()}
    second = {n: beta2 * state.second.get(n, floor) + (1 - beta2) * d.square() for n, d in deltas.items()}
    step = {name: rate * first[name] / (second[name].sqrt() + tau) for name in deltas}
    return AdamState(first, second), step


def _check_decay(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(f"{name} is {value}", mend="choose it from 0 up to, but not including, 1")


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name} is {value}", mend="choose it above 0")


def _check_same(before: Mapping[str, Tensor], merged: Mapping[str, Tensor]) -> None:
    """The state of the first round is empty and fits everything."""
    for name in sorted(set(before) ^ set(merged)) if before else ():
        raise ShapeError("this layer is not in every round", name, "merge the same layers every round")
    for name, kept in before.items():
        if kept.shape != merged[name].shape:
            raise ShapeError(
                f"update {tuple(merged[name].shape)} after {tuple(kept.shape)}", name, "keep the architecture"
            )
