"""Methods on LoRA factors, against their papers' formulas written out densely."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.errors import RankError, RoundError, ShapeError
from model.factors import Adapter, Factors
from model.methods.fedex import average_with_residual
from model.methods.fedit import average_pairs
from model.methods.fedsa import share_down_projection
from model.methods.ffa import average_down
from model.methods.flexlora import average_products, distribute
from model.methods.flora import stack_adapters
from model.methods.hetlora import cut, pad_and_weigh

few = settings(deadline=None, max_examples=20)
SHAPES = {"conv": (6, 9), "head": (4, 12)}
RANKS = {"a": 2, "b": 4, "c": 1}
SHARES = {"a": 0.5, "b": 0.3, "c": 0.2}


def _adapter(seed: int, rank: int = 2) -> dict[str, Factors]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: Factors(
            torch.randn(out, rank, generator=generator, dtype=torch.float64),
            torch.randn(rank, inner, generator=generator, dtype=torch.float64),
        )
        for name, (out, inner) in SHAPES.items()
    }


def _uploads(seed: int = 0, ranks: Mapping[str, int] | None = None) -> dict[str, dict[str, Factors]]:
    return {site: _adapter(seed + ord(site), ranks[site] if ranks else 2) for site in SHARES}


def _dense(adapter: Adapter) -> dict[str, Tensor]:
    return {name: factors.B.double() @ factors.A.double() for name, factors in adapter.items()}


def _mean_product(uploads: Mapping[str, Adapter]) -> dict[str, Tensor]:
    """``0.5 B_a A_a + 0.3 B_b A_b + 0.2 B_c A_c``."""
    a, b, c = (_dense(uploads[site]) for site in "abc")
    return {name: 0.5 * a[name] + 0.3 * b[name] + 0.2 * c[name] for name in SHAPES}


def _close(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-10, atol=1e-10)


def _frozen(seed: int = 0) -> tuple[dict[str, dict[str, Factors]], dict[str, Tensor]]:
    """Uploads that share one A."""
    A = {name: factors.A for name, factors in _adapter(99).items()}
    uploads = _uploads(seed)
    return {s: {n: Factors(f.B, A[n]) for n, f in u.items()} for s, u in uploads.items()}, A


# What each method does to the weights of the next round, as a dense update.
MERGES: dict[str, Callable[[Mapping[str, Adapter], Mapping[str, float]], dict[str, Tensor]]] = {
    "fedit": lambda u, p: _dense(average_pairs(u, p)),
    "ffa": lambda u, p: _dense(average_down(u, p, {n: f.A for n, f in u["a"].items()})),
    "flexlora": lambda u, p: _dense(distribute(average_products(u, p), 99)),
    "flora": lambda u, p: _dense(stack_adapters(u, p)),
    "hetlora": lambda u, p: _dense(pad_and_weigh(u, 5)),
    "fedex": lambda u, p: _dense(average_with_residual(u, p)[0]),
    "fedsa": lambda u, p: {n: u["b"][n].B.double() @ A for n, A in share_down_projection(u, p).items()},
}
anyhow = pytest.mark.parametrize("method", MERGES)


@anyhow
def test_equal_sites_give_that_site(method: str) -> None:
    site = _adapter(7)
    _close(MERGES[method](dict.fromkeys(SHARES, site), SHARES), _dense(site))


@anyhow
def test_the_order_of_the_sites_does_not_change_one_bit(method: str) -> None:
    uploads = _frozen()[0]
    there = MERGES[method](uploads, SHARES)
    back = MERGES[method](dict(reversed(uploads.items())), dict(reversed(SHARES.items())))
    assert list(there) == list(back) == sorted(SHAPES)
    assert all(torch.equal(there[name], back[name]) for name in there)


@anyhow
def test_results_are_float64_and_uploads_stay_as_they_were(method: str) -> None:
    uploads = {
        s: {n: Factors(f.B.float(), f.A.float()) for n, f in u.items()} for s, u in _frozen()[0].items()
    }
    kept = {s: {n: Factors(f.B.clone(), f.A.clone()) for n, f in u.items()} for s, u in uploads.items()}
    assert all(X.dtype == torch.float64 for X in MERGES[method](uploads, SHARES).values())
    for site, adapter in uploads.items():
        for name, factors in adapter.items():
            assert torch.equal(factors.B, kept[site][name].B)
            assert torch.equal(factors.A, kept[site][name].A)


@few
@given(seed=st.integers(0, 10**6))
def test_fedit_averages_each_factor_and_misses_the_mean_product(seed: int) -> None:
    uploads = _uploads(seed)
    pairs = average_pairs(uploads, SHARES)
    for name, (B, A) in pairs.items():
        a, b, c = (uploads[site][name] for site in "abc")
        torch.testing.assert_close(B, 0.5 * a.B + 0.3 * b.B + 0.2 * c.B)
        torch.testing.assert_close(A, 0.5 * a.A + 0.3 * b.A + 0.2 * c.A)
        assert float((B @ A - _mean_product(uploads)[name]).norm()) > 0.1


@few
@given(seed=st.integers(0, 10**6))
def test_ffa_is_exact_because_a_is_common(seed: int) -> None:
    uploads, A = _frozen(seed)
    merged = average_down(uploads, SHARES, A)
    _close(_dense(merged), _mean_product(uploads))
    assert all(torch.equal(merged[name].A, A[name]) for name in merged)


def test_with_a_common_a_fedit_is_ffa() -> None:
    uploads, A = _frozen()
    _close(_dense(average_pairs(uploads, SHARES)), _dense(average_down(uploads, SHARES, A)))


def test_ffa_refuses_an_a_that_was_trained() -> None:
    uploads, A = _frozen()
    uploads["b"]["conv"] = Factors(uploads["b"]["conv"].B, A["conv"] + 1e-3)
    with pytest.raises(ShapeError, match="b sent an A"):
        average_down(uploads, SHARES, A)
    with pytest.raises(ShapeError, match="no frozen A"):
        average_down(_frozen()[0], SHARES, {"conv": A["conv"]})


def test_ffa_accepts_a_that_travelled_as_float32() -> None:
    uploads, A = _frozen()
    sent = {s: {n: Factors(f.B, f.A.float()) for n, f in u.items()} for s, u in uploads.items()}
    _close(_dense(average_down(sent, SHARES, A)), _mean_product(uploads))


@few
@given(seed=st.integers(0, 10**6))
def test_flora_and_untruncated_flexlora_are_the_mean_product_for_any_ranks(seed: int) -> None:
    uploads = _uploads(seed, RANKS)
    expected = _mean_product(uploads)
    stacked = stack_adapters(uploads, SHARES)
    _close(_dense(stacked), expected)
    assert {f.rank for f in stacked.values()} == {7}
    _close(_dense(average_products(uploads, SHARES)), expected)
    _close(_dense(distribute(average_products(uploads, SHARES), 7)), expected)


def test_flora_puts_the_scaled_sites_side_by_side() -> None:
    uploads = _uploads(ranks=RANKS)
    B, A = stack_adapters(uploads, SHARES)["conv"]
    torch.testing.assert_close(B[:, 2:6], 0.3 * uploads["b"]["conv"].B)
    torch.testing.assert_close(A[6:], uploads["c"]["conv"].A)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_flexlora_hands_out_the_best_factors_of_the_rank(rank: int) -> None:
    uploads = _uploads(ranks=RANKS)
    sent = distribute(average_products(uploads, SHARES), rank)
    for name, W in _mean_product(uploads).items():
        U, S, Vh = torch.linalg.svd(W, full_matrices=False)
        torch.testing.assert_close(sent[name].product(), U[:, :rank] * S[:rank] @ Vh[:rank])
        assert sent[name].rank == rank


def test_a_layer_that_a_site_lacks_counts_as_zero_in_flora_and_flexlora() -> None:
    uploads = _uploads()
    del uploads["c"]["head"]
    expected = 0.5 * uploads["a"]["head"].product() + 0.3 * uploads["b"]["head"].product()
    for merge in (stack_adapters, average_products):
        torch.testing.assert_close(merge(uploads, SHARES)["head"].product(), expected)


def test_hetlora_by_hand() -> None:
    one, two = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    short = {"w": Factors(3 * one, one)}  # product 3, norm 3
    long = {"w": Factors(torch.cat([one, two], 1), torch.cat([one, -one]))}  # product 1 − 2 = −1, norm 1
    merged = pad_and_weigh({"short": short, "long": long}, 3)["w"]
    assert merged.B.tolist() == [[0.75 * 3 + 0.25 * 1, 0.25 * 2, 0.0]]
    assert merged.A.tolist() == [[0.75 + 0.25], [-0.25], [0.0]]


def test_hetlora_weighs_by_the_norm_of_the_whole_reconstructed_update() -> None:
    uploads = _uploads(ranks=RANKS)
    norms = [math.sqrt(sum(float(W.square().sum()) for W in _dense(uploads[s]).values())) for s in "abc"]
    p = [norm / sum(norms) for norm in norms]
    merged = pad_and_weigh(uploads, 4)
    for name, (out, inner) in SHAPES.items():
        B, A = torch.zeros(out, 4, dtype=torch.float64), torch.zeros(4, inner, dtype=torch.float64)
        for share, (site, rank) in zip(p, RANKS.items(), strict=True):
            B[:, :rank] += share * uploads[site][name].B
            A[:rank] += share * uploads[site][name].A
        torch.testing.assert_close(merged[name].B, B)
        torch.testing.assert_close(merged[name].A, A)


def test_hetlora_cuts_to_the_first_components() -> None:
    adapter = _adapter(1, rank=4)
    received = cut(adapter, 3)
    assert torch.equal(received["conv"].B, adapter["conv"].B[:, :3])
    assert torch.equal(received["conv"].A, adapter["conv"].A[:3])
    _close(_dense(cut(adapter, 9)), _dense(adapter))
    received["conv"].A.zero_()
    assert float(adapter["conv"].A.abs().min()) > 0


def test_hetlora_refuses_what_it_cannot_pad_or_weigh() -> None:
    with pytest.raises(RankError, match="above 3"):
        pad_and_weigh(_uploads(ranks=RANKS), 3)
    with pytest.raises(RankError):
        cut(_adapter(1), 0)
    nothing = {"w": Factors(torch.zeros(2, 1), torch.ones(1, 2))}
    with pytest.raises(RoundError, match="every update is zero"):
        pad_and_weigh({"a": nothing, "b": nothing}, 1)
    with pytest.raises(RoundError):
        pad_and_weigh({}, 1)


@few
@given(seed=st.integers(0, 10**6))
def test_fedex_pairs_and_residual_make_the_mean_product(seed: int) -> None:
    uploads = _uploads(seed)
    pairs, residual = average_with_residual(uploads, SHARES)
    _close(_dense(pairs), _dense(average_pairs(uploads, SHARES)))
    expected = _mean_product(uploads)
    for name, W in _dense(residual).items():
        torch.testing.assert_close(W, expected[name] - pairs[name].product())
        torch.testing.assert_close(W + pairs[name].product(), expected[name])


def test_fedex_leaves_nothing_over_when_a_is_common() -> None:
    residual = average_with_residual(_frozen()[0], SHARES)[1]
    assert all(float(W.abs().max()) < 1e-14 for W in _dense(residual).values())


def test_fedsa_shares_only_the_mean_a() -> None:
    uploads = _uploads()
    for name, A in share_down_projection(uploads, SHARES).items():
        a, b, c = (uploads[site][name].A for site in "abc")
        torch.testing.assert_close(A, 0.5 * a + 0.3 * b + 0.2 * c)
    other = {s: {n: Factors(-f.B, f.A) for n, f in u.items()} for s, u in uploads.items()}
    _close(share_down_projection(other, SHARES), share_down_projection(uploads, SHARES))


weighted = pytest.mark.parametrize("method", [m for m in MERGES if m != "hetlora"])


@weighted
@pytest.mark.parametrize(
    "shares",
    [
        {"a": 0.5, "b": 0.3, "c": 0.3},
        {"a": 0.5, "b": 0.5},
        {**SHARES, "d": 0.0},
        {"a": 1.5, "b": -0.7, "c": 0.2},
        {"a": math.nan, "b": 0.5, "c": 0.5},
    ],
)
def test_shares_that_are_no_distribution_over_the_sites_are_refused(
    method: str, shares: dict[str, float]
) -> None:
    with pytest.raises(RoundError):
        MERGES[method](_frozen()[0], shares)


@pytest.mark.parametrize("method", ["fedit", "flora", "flexlora", "fedex", "fedsa"])
def test_no_sites_are_refused(method: str) -> None:
    with pytest.raises(RoundError, match="no site"):
        MERGES[method]({}, {})


@pytest.mark.parametrize("method", ["fedit", "ffa", "fedex", "fedsa"])
def test_unequal_ranks_cannot_be_averaged_entry_by_entry(method: str) -> None:
    with pytest.raises(RankError, match=r"\[1, 2, 4\]"):
        MERGES[method](_uploads(ranks=RANKS), SHARES)


@pytest.mark.parametrize("method", ["fedit", "ffa", "hetlora", "fedex", "fedsa"])
def test_a_lacking_layer_is_refused_where_factors_are_averaged(method: str) -> None:
    uploads = _frozen()[0]
    del uploads["b"]["head"]
    with pytest.raises(ShapeError, match="b sent no update") as error:
        MERGES[method](uploads, SHARES)
    assert error.value.where == "head"


@anyhow
def test_other_sizes_and_factors_that_do_not_multiply_are_refused(method: str) -> None:
    uploads = _frozen()[0]
    B, A = uploads["b"]["conv"]
    uploads["b"]["conv"] = Factors(B[:5], A)
    with pytest.raises(ShapeError, match="b sent an update"):
        MERGES[method](uploads, SHARES)
    uploads["b"]["conv"] = Factors(B[:, :1], A)
    with pytest.raises(RankError, match="1 columns"):
        MERGES[method](uploads, SHARES)
