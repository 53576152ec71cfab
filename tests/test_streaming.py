"""The streaming merge is the truncated dense sum, whatever the order, the bands and the way the parts are read."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.errors import RankError, ShapeError
from model.factors import Factors, stack, truncate
from model.package import PackageView, pack_adapter
from model.streaming import Part, merge_layer, merge_sources


def _parts(count: int, out: int, inner: int, rank: int, seed: int = 1) -> list[Part]:
    g = torch.Generator().manual_seed(seed)
    return [
        ((k + 1) / count, Factors(torch.randn(out, rank, generator=g), torch.randn(rank, inner, generator=g)))
        for k in range(count)
    ]


def _dense(parts: list[Part]) -> Tensor:
    return sum((c * f.B.double() @ f.A.double() for c, f in parts), torch.zeros((), dtype=torch.float64))


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


class _Walks:
    """Parts that count how often they are walked."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts, self.walks = parts, 0

    def __iter__(self) -> Iterator[Part]:
        self.walks += 1
        return iter(self.parts)


@settings(max_examples=30, deadline=None)
@given(
    out=st.integers(1, 12),
    inner=st.integers(1, 12),
    count=st.integers(1, 8),
    part_rank=st.integers(1, 3),
    rank=st.integers(1, 14),
    band_bytes=st.integers(1, 400),
)
def test_the_merge_is_the_truncated_dense_sum(
    out: int, inner: int, count: int, part_rank: int, rank: int, band_bytes: int
) -> None:
    parts = _parts(count, out, inner, part_rank)
    D = _dense(parts)
    S = torch.linalg.svdvals(D)
    merged, cut = merge_layer(parts, rank, band_bytes)
    assert merged.rank <= min(rank, out, inner)
    expected = float(S[rank:].square().sum().sqrt())
    assert cut == pytest.approx(expected, abs=1e-5 * float(D.norm()))
    left = float((merged.product() - D).norm())
    assert left == pytest.approx(expected, abs=1e-5 * float(D.norm()))


@pytest.mark.parametrize(("out", "inner"), [(160, 200), (200, 160)])
def test_stacking_and_the_dense_way_agree(out: int, inner: int) -> None:
    """Ranks add up to 10, a sixteenth of the smaller side: stacked. A part of rank 1 and coefficient 0 more: dense."""
    few = _parts(5, out, inner, 2)
    nothing = [(0.0, Factors(torch.ones(out, 1), torch.ones(1, inner)))]
    stacked, stacked_cut = merge_layer(few, 4)
    dense, dense_cut = merge_layer([*few, *nothing], 4)
    assert torch.equal(stacked.product(), truncate(stack(few), 4)[0].product())
    assert torch.equal(merge_layer(iter(few), 4)[0].product(), stacked.product())
    assert _distance(dense.product(), stacked.product()) < 1e-5
    assert dense_cut == pytest.approx(stacked_cut, rel=1e-5)


def test_the_order_of_the_sites_matters_to_rounding_only() -> None:
    parts = _parts(40, 16, 60, 3)
    straight, cut = merge_layer(parts, 8)
    backwards, other_cut = merge_layer(parts[::-1], 8)
    assert _distance(backwards.product(), straight.product()) < 1e-5
    assert other_cut == pytest.approx(cut, rel=1e-5)


def test_bands_do_not_change_the_result() -> None:
    parts = _parts(40, 16, 61, 3)
    whole, cut = merge_layer(parts, 8)
    by_column, other_cut = merge_layer(parts, 8, band_bytes=1)
    assert _distance(by_column.product(), whole.product()) < 1e-5
    assert other_cut == pytest.approx(cut, rel=1e-5)


def test_an_iterator_is_walked_once_with_the_same_result() -> None:
    parts = _parts(40, 16, 60, 3)
    again, _ = merge_layer(parts, 8, band_bytes=640)
    once, _ = merge_layer(iter(parts), 8, band_bytes=640)
    assert _distance(once.product(), again.product()) < 1e-5


def test_parts_are_walked_once_per_band_and_twice_more() -> None:
    """16 × 60 float32 in bands of 640 bytes is 6 bands of 10 columns; one walk counts ranks, one projects."""
    walks = _Walks(_parts(40, 16, 60, 3))
    merge_layer(walks, 8, band_bytes=640)
    assert walks.walks == 6 + 2


def test_a_merge_of_one_full_rank_update_is_that_update() -> None:
    parts = [(1.0, Factors(torch.eye(3), torch.tensor([[3.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0]])))]
    merged, cut = merge_layer(parts, 2)
    assert torch.allclose(
        merged.product(), torch.diag(torch.tensor([3.0, 2, 0])).double() @ torch.eye(3, 4).double()
    )
    assert cut == pytest.approx(1.0)
    assert merged.B.norm(dim=0).tolist() == pytest.approx([math.sqrt(3), math.sqrt(2)])
    assert merged.A.norm(dim=1).tolist() == pytest.approx([math.sqrt(3), math.sqrt(2)])


def test_updates_without_weight_leave_one_component_of_zeros() -> None:
    merged, cut = merge_layer([(0.0, f) for _, f in _parts(4, 6, 9, 4)], 5)
    assert merged.rank == 1 and cut == 0
    assert torch.equal(merged.product(), torch.zeros(6, 9, dtype=torch.float64))


def test_components_of_rounding_are_left_out() -> None:
    """Sixty updates of one direction: rank 1, whatever the budget."""
    f = Factors(torch.arange(1.0, 9.0)[:, None], torch.arange(1.0, 31.0)[None])
    merged, cut = merge_layer([(1.0, f)] * 60, 8)
    assert merged.rank == 1
    assert _distance(merged.product(), 60 * f.product().double()) < 1e-6
    assert cut < 1e-5 * float(60 * f.product().norm())


def test_parts_that_do_not_fit_are_refused() -> None:
    parts = _parts(20, 8, 12, 2)
    with pytest.raises(RankError):
        merge_layer(parts, 0)
    with pytest.raises(ShapeError):
        merge_layer([], 4)
    with pytest.raises(ShapeError):
        merge_layer([*parts, *_parts(1, 8, 13, 2)], 4)
    with pytest.raises(RankError):
        merge_layer([*parts, (1.0, Factors(torch.ones(8, 2), torch.ones(1, 12)))], 4)


def test_packages_are_merged_layer_by_layer_and_a_missing_layer_counts_as_zero() -> None:
    wide, narrow = _parts(12, 8, 20, 3), _parts(1, 4, 5, 2, seed=2)
    adapters = [{"wide": f} for _, f in wide]
    adapters[3] = {**adapters[3], "narrow": narrow[0][1]}
    views = [PackageView(pack_adapter(adapter, "fp32")) for adapter in adapters]
    merged = list(merge_sources([(c, view) for (c, _), view in zip(wide, views, strict=True)], 8))
    assert [layer.name for layer in merged] == ["narrow", "wide"]
    assert _distance(merged[0].factors.product(), wide[3][0] * narrow[0][1].product().double()) < 1e-6
    assert _distance(merged[1].factors.product(), _dense(wide)) < 1e-5
    assert list(merge_sources([], 8)) == []
