"""FedAvgM and FedAdam, against their recursions written out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from model.errors import ConfigError, ShapeError
from model.methods.server_optimizers import AdamState, MomentumState, adam_step, momentum_step

DELTAS = [(1.0, -2.0), (0.5, 0.0), (-4.0, 3.0)]


def _merged(values: tuple[float, float]) -> dict[str, Tensor]:
    return {"w": torch.tensor([values[0]]), "b": torch.tensor([values[1]])}


def _pair(step: Mapping[str, Tensor]) -> list[float]:
    return [float(step["w"]), float(step["b"])]


def test_momentum_by_hand() -> None:
    state, seen = MomentumState(), []
    for delta in DELTAS:
        state, step = momentum_step(state, _merged(delta), beta=0.5, rate=0.1)
        seen.append(_pair(step))
    # v: 1, 0.5 + 0.5·1 = 1, −4 + 0.5·1 = −3.5;  −2, −1, 3 − 0.5 = 2.5
    assert seen[0] == pytest.approx([0.1, -0.2])
    assert seen[1] == pytest.approx([0.1, -0.1])
    assert seen[2] == pytest.approx([-0.35, 0.25])


def test_without_momentum_the_step_is_plain_averaging() -> None:
    state = MomentumState()
    for delta in DELTAS:
        state, step = momentum_step(state, _merged(delta), beta=0.0, rate=1.0)
        assert _pair(step) == list(delta)


def test_steady_updates_gain_the_sum_of_the_geometric_series() -> None:
    state = MomentumState()
    for _ in range(200):
        state, step = momentum_step(state, _merged((1.0, -1.0)), beta=0.9, rate=1.0)
    assert _pair(step) == pytest.approx([10.0, -10.0])


def test_adam_is_algorithm_2() -> None:
    rate, beta1, beta2, tau = 0.1, 0.9, 0.99, 1e-3
    state = AdamState()
    m, v = [0.0, 0.0], [tau**2, tau**2]
    for delta in DELTAS:
        state, step = adam_step(state, _merged(delta), rate, beta1, beta2, tau)
        m = [beta1 * m[i] + (1 - beta1) * delta[i] for i in range(2)]
        v = [beta2 * v[i] + (1 - beta2) * delta[i] ** 2 for i in range(2)]
        assert _pair(step) == pytest.approx([rate * m[i] / (math.sqrt(v[i]) + tau) for i in range(2)])


def test_adam_has_no_bias_correction() -> None:
    _, step = adam_step(AdamState(), _merged((1.0, 0.0)), rate=1.0, beta1=0.5, beta2=0.99, tau=1e-9)
    assert _pair(step) == pytest.approx([5.0, 0.0])  # (1 − β₁) / √(1 − β₂); corrected it would be 1


def test_a_large_tau_makes_adam_a_scaled_average() -> None:
    _, step = adam_step(AdamState(), _merged((1.0, -2.0)), rate=1.0, beta1=0.0, beta2=0.99, tau=1e6)
    assert [1e6 * x for x in _pair(step)] == pytest.approx(
        [1 / (math.sqrt(0.99) + 1), -2 / (math.sqrt(0.99) + 1)]
    )


def test_a_step_leaves_state_and_update_as_they_were() -> None:
    merged = _merged((1.0, 2.0))
    momentum, _ = momentum_step(MomentumState(), merged, 0.9, 1.0)
    adam, _ = adam_step(AdamState(), merged, 1.0, 0.9, 0.99, 1e-3)
    kept = [t.clone() for t in (*momentum.velocity.values(), *adam.first.values(), *adam.second.values())]
    again = [_pair(momentum_step(momentum, merged, 0.9, 1.0)[1]) for _ in range(2)]
    adams = [_pair(adam_step(adam, merged, 1.0, 0.9, 0.99, 1e-3)[1]) for _ in range(2)]
    now = (*momentum.velocity.values(), *adam.first.values(), *adam.second.values())
    assert again[0] == again[1]
    assert adams[0] == adams[1]
    assert all(torch.equal(a, b) for a, b in zip(now, kept, strict=True))
    assert _pair(merged) == [1.0, 2.0]


def test_the_order_of_the_layers_is_irrelevant_and_results_are_float64() -> None:
    merged = _merged((1.0, 2.0))
    state, step = momentum_step(MomentumState(), dict(reversed(merged.items())), 0.9, 1.0)
    assert list(step) == list(state.velocity) == ["b", "w"]
    assert {t.dtype for t in step.values()} == {torch.float64}


@pytest.mark.parametrize(
    ("beta1", "beta2", "rate", "tau"),
    [(1.0, 0.9, 1, 1), (0.9, -0.1, 1, 1), (0.9, 0.9, 0, 1), (0.9, 0.9, 1, 0), (math.nan, 0.9, 1, 1)],
)
def test_settings_out_of_bounds_are_refused(beta1: float, beta2: float, rate: float, tau: float) -> None:
    with pytest.raises(ConfigError):
        adam_step(AdamState(), _merged((1, 1)), rate, beta1, beta2, tau)


def test_momentum_of_one_or_more_and_other_layers_are_refused() -> None:
    with pytest.raises(ConfigError):
        momentum_step(MomentumState(), _merged((1, 1)), 1.0, 1.0)
    with pytest.raises(ConfigError):
        momentum_step(MomentumState(), _merged((1, 1)), 0.9, 0.0)
    state, _ = momentum_step(MomentumState(), _merged((1, 1)), 0.9, 1.0)
    with pytest.raises(ShapeError):
        momentum_step(state, {"w": torch.ones(1)}, 0.9, 1.0)
    with pytest.raises(ShapeError):
        momentum_step(state, {"w": torch.ones(2), "b": torch.ones(1)}, 0.9, 1.0)
