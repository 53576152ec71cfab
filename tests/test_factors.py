"""The algebra of low-rank updates against dense arithmetic."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.errors import RankError, ShapeError
from model.factors import (
    Factors,
    adapter_norm,
    factorise,
    fold,
    norm,
    stack,
    sum_adapters,
    truncate,
    truncate_adapter,
)

few = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31 - 1)
sizes = st.integers(1, 9)


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _factors(out: int, inner: int, rank: int, seed: int) -> Factors:
    return Factors(_random(out, rank, seed=seed), _random(rank, inner, seed=seed + 1))


def _singular_values(dense: Tensor) -> Tensor:
    values: Tensor = torch.linalg.svdvals(dense)
    return values


@few
@given(
    out=sizes,
    inner=sizes,
    parts=st.lists(st.tuples(st.floats(-3, 3), st.integers(1, 4), seeds), min_size=1, max_size=4),
)
def test_stacking_equals_the_sum_of_the_products(
    out: int, inner: int, parts: list[tuple[float, int, int]]
) -> None:
    listed = [(c, _factors(out, inner, rank, seed)) for c, rank, seed in parts]
    dense = sum((c * f.product() for c, f in listed), torch.zeros(out, inner, dtype=torch.float64))
    stacked = stack(listed)
    assert stacked.rank == sum(rank for _, rank, _ in parts)
    torch.testing.assert_close(stacked.product(), dense, rtol=0, atol=1e-9)


@few
@given(out=sizes, inner=sizes, inside=st.integers(1, 12), kept=st.integers(1, 12), seed=seeds)
def test_the_truncation_error_equals_the_cut_singular_values(
    out: int, inner: int, inside: int, kept: int, seed: int
) -> None:
    factors = _factors(out, inner, inside, seed)
    short, cut = truncate(factors, kept)
    expected = float(_singular_values(factors.product())[kept:].square().sum().sqrt())
    error = float((factors.product() - short.product()).norm())
    assert short.rank == min(kept, inside, out, inner)
    assert cut == pytest.approx(expected, abs=1e-9)
    assert error == pytest.approx(expected, abs=1e-9)


@few
@given(out=sizes, inner=sizes, rank=st.integers(1, 6), seed=seeds)
def test_truncation_shares_each_singular_value_between_both_factors(
    out: int, inner: int, rank: int, seed: int
) -> None:
    (B, A), _ = truncate(_factors(out, inner, rank, seed), rank)
    torch.testing.assert_close(B.norm(dim=0), A.norm(dim=1), rtol=1e-6, atol=1e-9)


@few
@given(out=sizes, inner=sizes, rank=st.integers(1, 6), seed=seeds)
def test_the_norm_is_the_dense_frobenius_norm(out: int, inner: int, rank: int, seed: int) -> None:
    factors = _factors(out, inner, rank, seed)
    assert norm(factors) == pytest.approx(float(factors.product().norm()), rel=1e-9)


def test_the_norm_of_an_adapter_is_that_of_all_its_layers_together() -> None:
    three = Factors(torch.tensor([[3.0]]), torch.ones(1, 1))
    four = Factors(torch.tensor([[4.0]]), torch.ones(1, 1))
    assert adapter_norm({"a": three, "b": four}) == 5.0
    assert adapter_norm({}) == 0.0


@few
@given(order=st.permutations(range(4)))
def test_the_order_of_adapters_does_not_change_their_sum(order: list[int]) -> None:
    parts = [(0.5 + k, {"w": _factors(5, 7, k + 1, seed=k)}) for k in range(4)]
    straight = sum_adapters(parts)["w"].product()
    shuffled = sum_adapters(parts[k] for k in order)["w"].product()
    torch.testing.assert_close(shuffled, straight, rtol=0, atol=1e-12)


def test_a_layer_that_an_adapter_lacks_counts_as_zero() -> None:
    a, b = _factors(3, 4, 2, seed=1), _factors(5, 6, 1, seed=2)
    total = sum_adapters([(2.0, {"late": b, "early": a}), (1.0, {"early": a})])
    assert list(total) == ["early", "late"]
    torch.testing.assert_close(total["early"].product(), 3 * a.product())
    torch.testing.assert_close(total["late"].product(), 2 * b.product())
    assert sum_adapters([]) == {}


@few
@given(seed=seeds, rank=st.integers(1, 8))
def test_the_fraction_an_adapter_loses_is_its_share_of_the_squared_norm(seed: int, rank: int) -> None:
    adapter = {"wide": _factors(6, 9, 5, seed), "narrow": _factors(3, 4, 3, seed + 7)}
    kept, lost = truncate_adapter(adapter, rank)
    gone = sum(float((adapter[k].product() - kept[k].product()).square().sum()) for k in adapter)
    assert lost == pytest.approx(gone / adapter_norm(adapter) ** 2, abs=1e-12)


def test_cutting_nothing_loses_nothing() -> None:
    assert truncate_adapter({}, 3) == ({}, 0.0)
    zero = Factors(torch.zeros(4, 2), torch.zeros(2, 5))
    kept, lost = truncate_adapter({"w": zero}, 1)
    assert lost == 0.0
    assert not kept["w"].product().any()


@few
@given(shape=st.sampled_from([(3, 2, 3, 3), (8, 1, 1, 1), (5,), (2, 30), (30, 2)]), seed=seeds)
def test_factorising_a_dense_update_at_full_rank_is_exact(shape: tuple[int, ...], seed: int) -> None:
    delta = _random(*shape, seed=seed)
    factors, cut = factorise(delta, 1000)
    assert cut == 0.0
    torch.testing.assert_close(factors.product(), delta.reshape(delta.shape[0], -1), rtol=0, atol=1e-12)


def test_factorising_cuts_the_smallest_singular_values() -> None:
    factors, cut = factorise(torch.diag(torch.tensor([5.0, 4.0, 3.0, 0.0])), 1)
    assert cut == pytest.approx(5.0)  # √(4² + 3²)
    torch.testing.assert_close(
        factors.product(), torch.diag(torch.tensor([5.0, 0, 0, 0], dtype=torch.float64))
    )


def test_folding_adds_the_step_and_leaves_its_inputs_alone() -> None:
    weights = {"w": _random(4, 2, 3, 3, seed=1).float(), "b": torch.ones(4)}
    before = {name: W.clone() for name, W in weights.items()}
    factors = _factors(4, 18, 2, seed=2)
    folded = fold(weights, {"w": factors}, step=0.25)
    expected = (weights["w"].double() + 0.25 * factors.product().reshape(4, 2, 3, 3)).float()
    assert torch.equal(folded["w"], expected)
    assert folded["w"].dtype == torch.float32
    assert torch.equal(folded["b"], weights["b"])
    assert all(torch.equal(weights[name], before[name]) for name in weights)


def test_folding_nothing_changes_nothing() -> None:
    weights = {"w": _random(4, 5, seed=1).float()}
    assert torch.equal(fold(weights, {})["w"], weights["w"])
    assert torch.equal(fold(weights, {"w": _factors(4, 5, 2, seed=3)}, step=0.0)["w"], weights["w"])


def test_updates_of_different_layers_cannot_be_stacked() -> None:
    with pytest.raises(ShapeError, match=r"\(3, 4\).*\(3, 5\)"):
        stack([(1.0, _factors(3, 4, 1, seed=1)), (1.0, _factors(3, 5, 1, seed=1))])
    with pytest.raises(ShapeError):
        stack([])


def test_factors_that_do_not_multiply_are_refused() -> None:
    with pytest.raises(RankError, match="2 columns, A has 3 rows"):
        truncate(Factors(torch.zeros(4, 2), torch.zeros(3, 5)), 1)


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(RankError, match="rank 0"):
        truncate(_factors(3, 3, 2, seed=1), 0)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("other", (4, 6)), ("w", (4, 5)), ("w", (6, 4))],
    ids=["unknown layer", "other size", "transposed"],
)
def test_folding_into_another_base_is_refused(name: str, shape: tuple[int, int]) -> None:
    with pytest.raises(ShapeError):
        fold({name: torch.zeros(shape)}, {"w": _factors(4, 6, 1, seed=1)})
