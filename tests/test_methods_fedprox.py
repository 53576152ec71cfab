"""FedProx: the gradient of the proximal term; what training does with it is in test_training."""

from __future__ import annotations

import pytest
import torch

from model.errors import ConfigError
from model.methods.fedprox import proximal_gradient


def test_the_gradient_is_that_of_half_mu_times_the_squared_distance() -> None:
    start = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    weight = torch.tensor([[0.0, 4.0], [0.5, 1.0]], dtype=torch.float64, requires_grad=True)
    (0.3 / 2 * (weight - start).square().sum()).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    torch.testing.assert_close(proximal_gradient(weight.detach(), start, 0.3), weight.grad)


def test_there_is_no_pull_at_the_start_nor_without_mu() -> None:
    start, weight = torch.ones(3), torch.arange(3.0)
    assert proximal_gradient(start, start, 5.0).tolist() == [0, 0, 0]
    assert proximal_gradient(weight, start, 0.0).tolist() == [0, 0, 0]


def test_a_negative_mu_is_refused() -> None:
    with pytest.raises(ConfigError):
        proximal_gradient(torch.ones(1), torch.zeros(1), -0.1)
