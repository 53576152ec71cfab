"""FedAvg of full weights, by hand."""

from __future__ import annotations

import pytest
import torch

from model.average import average_weights
from model.errors import RoundError


def test_the_average_by_hand() -> None:
    trained = {"a": {"w": torch.tensor([1.0, 2.0])}, "b": {"w": torch.tensor([5.0, 10.0])}}
    assert average_weights(trained, {"a": 3.0, "b": 1.0})["w"].tolist() == [2.0, 4.0]


def test_the_average_of_one_site_is_that_site() -> None:
    W = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(average_weights({"a": {"w": W}}, {"a": 7.0})["w"], W)


def test_the_order_of_the_sites_does_not_change_one_bit() -> None:
    generator = torch.Generator().manual_seed(1)
    trained = {site: {"w": torch.randn(50, generator=generator)} for site in "abcd"}
    volumes = {"a": 1.0, "b": 2.5, "c": 3.0, "d": 0.1}
    straight = average_weights(trained, volumes)["w"]
    assert torch.equal(average_weights(dict(reversed(trained.items())), volumes)["w"], straight)
    assert straight.dtype == torch.float32


def test_volumes_of_sites_that_did_not_train_do_not_count() -> None:
    trained = {"a": {"w": torch.tensor([2.0])}}
    assert average_weights(trained, {"a": 1.0, "absent": 99.0})["w"].item() == 2.0


def test_an_average_of_nobody_is_refused() -> None:
    with pytest.raises(RoundError):
        average_weights({}, {})
