"""FedCE: contributions and weights, against the paper's formulas by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.errors import RoundError, ShapeError
from model.methods.fedce import (
    contribution_weights,
    gradient_contribution,
    leave_one_out_mean,
    mean_over_rounds,
)

few = settings(deadline=None, max_examples=25)
SHARES = {"a": 0.5, "b": 0.3, "c": 0.2}


def _vectors(**values: tuple[float, float]) -> dict[str, dict[str, Tensor]]:
    """A site's update of two layers of one number each."""
    return {s: {"v": torch.tensor([x]), "w": torch.tensor([[y]])} for s, (x, y) in values.items()}


def test_the_mean_without_a_site_is_the_average_less_its_part() -> None:
    weights = _vectors(a=(1, 2), b=(3, -1), c=(5, 7))
    without = leave_one_out_mean(weights, SHARES, "b")
    for name in ("v", "w"):
        average = sum(SHARES[s] * weights[s][name].double() for s in "abc")
        torch.testing.assert_close(without[name], (average - 0.3 * weights["b"][name].double()) / 0.7)
    assert float(without["v"]) == pytest.approx((0.5 * 1 + 0.2 * 5) / 0.7)


def test_the_mean_without_a_site_does_not_depend_on_that_site() -> None:
    weights = _vectors(a=(1, 2), b=(3, -1), c=(5, 7))
    changed = {**weights, **_vectors(b=(1e9, -1e9))}
    for name, value in leave_one_out_mean(weights, SHARES, "b").items():
        assert torch.equal(value, leave_one_out_mean(changed, SHARES, "b")[name])


def test_the_gradient_contribution_by_hand() -> None:
    updates = _vectors(a=(1, 0), b=(0, 1), c=(1, 1))
    found = gradient_contribution(updates, dict.fromkeys("abc", 1 / 3))
    # against a: b + c = (1, 2), cos 1/√5; against c: a + b = (1, 1), cos 1
    assert found == pytest.approx({"a": 1 - 1 / math.sqrt(5), "b": 1 - 1 / math.sqrt(5), "c": 0.0})


def test_shares_weigh_the_others_direction() -> None:
    updates = _vectors(a=(1, 0), b=(0, 1), c=(1, 1))
    found = gradient_contribution(updates, SHARES)
    assert found["a"] == pytest.approx(1 - 0.2 / math.hypot(0.2, 0.5))  # 0.3 b + 0.2 c = (0.2, 0.5)


def test_contributions_run_from_zero_to_two() -> None:
    half = {"a": 0.5, "b": 0.5}
    assert gradient_contribution(_vectors(a=(1, 2), b=(2, 4)), half) == pytest.approx({"a": 0, "b": 0})
    assert gradient_contribution(_vectors(a=(1, 2), b=(-3, -6)), half) == pytest.approx({"a": 2, "b": 2})
    assert gradient_contribution(_vectors(a=(1, 2), b=(0, 0)), half) == {"a": 1, "b": 1}


def test_the_length_of_an_update_does_not_change_its_own_contribution() -> None:
    updates = _vectors(a=(1, 0.5), b=(0, 1), c=(1, 1))
    longer = {**updates, "a": {name: 100 * value for name, value in updates["a"].items()}}
    ours, theirs = gradient_contribution(updates, SHARES), gradient_contribution(longer, SHARES)
    assert ours["a"] == pytest.approx(theirs["a"])


def test_the_order_of_the_sites_does_not_change_one_bit() -> None:
    updates = _vectors(a=(0.1, 0.7), b=(0.3, 0.2), c=(0.9, 0.4))
    back = dict(reversed(updates.items()))
    assert gradient_contribution(updates, SHARES) == gradient_contribution(back, SHARES)
    gradient, error = {"a": 0.1, "b": 0.7, "c": 0.3}, {"c": 0.2, "a": 0.3, "b": 0.1}
    there = contribution_weights(gradient, error)
    assert list(there) == ["a", "b", "c"]
    assert there == contribution_weights(dict(reversed(gradient.items())), dict(sorted(error.items())))


def test_weights_by_hand() -> None:
    gradient, error = {"a": 1.0, "b": 3.0}, {"a": 0.6, "b": 0.4}  # normalised: ¼ ¾ and 0.6 0.4
    assert contribution_weights(gradient, error) == pytest.approx({"a": 0.425, "b": 0.575})
    assert contribution_weights(gradient, error, "times") == pytest.approx(
        {"a": 0.15 / 0.45, "b": 0.3 / 0.45}
    )


def test_a_site_without_any_contribution_keeps_a_thousandth() -> None:
    floored = contribution_weights({"a": 0.0, "b": 1.0}, {"a": 0.0, "b": 1.0}, "times")
    assert floored == pytest.approx({"a": 0.001, "b": 0.999}, abs=1e-5)


def test_sites_that_contribute_alike_weigh_alike() -> None:
    alike = dict.fromkeys("abcd", 0.3)
    nothing = dict.fromkeys("abcd", 0.0)
    for gradient, error in ((alike, alike), (nothing, alike), (nothing, nothing)):
        assert contribution_weights(gradient, error) == pytest.approx(dict.fromkeys("abcd", 0.25))


@few
@given(
    sites=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1)), min_size=1, max_size=7),
    mode=st.sampled_from(["plus", "times"]),
)
def test_weights_are_shares(sites: list[tuple[float, float]], mode: str) -> None:
    gradient = {str(k): g for k, (g, _) in enumerate(sites)}
    shares = contribution_weights(gradient, {str(k): e for k, (_, e) in enumerate(sites)}, mode)  # type: ignore[arg-type]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
    assert all(share > 0 for share in shares.values())


def test_smoothing_is_the_mean_over_the_rounds_a_site_took_part_in() -> None:
    history = [{"a": 0.2, "b": 1.0}, {"a": 0.4}, {"a": 0.9, "b": 0.0}]
    assert mean_over_rounds(history) == pytest.approx({"a": 0.5, "b": 0.5})
    assert mean_over_rounds([]) == {}


def test_what_cannot_be_weighed_is_refused() -> None:
    pair = _vectors(a=(1, 2), b=(3, 4))
    with pytest.raises(RoundError, match="sent nothing"):
        leave_one_out_mean(pair, {"a": 0.5, "b": 0.5}, "z")
    with pytest.raises(RoundError, match="nobody has a share"):
        leave_one_out_mean(_vectors(a=(1, 2)), {"a": 1.0}, "a")
    with pytest.raises(RoundError, match="add up"):
        gradient_contribution(pair, {"a": 0.5, "b": 0.6})
    del pair["b"]["v"]
    with pytest.raises(ShapeError):
        gradient_contribution(pair, {"a": 0.5, "b": 0.5})
    for gradient, error in (
        ({"a": 1.0}, {"b": 1.0}),
        ({}, {}),
        ({"a": -1.0}, {"a": 1.0}),
        ({"a": 1.0}, {"a": math.nan}),
    ):
        with pytest.raises(RoundError):
            contribution_weights(gradient, error)
