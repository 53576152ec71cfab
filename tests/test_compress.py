"""Ranks under a byte budget: the budget is never exceeded, the energy is the best there is, nothing is lost."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.compress import energy_kept, fit_to_bytes, keep_energy, left_behind
from model.errors import ConfigError, PackageError, ShapeError
from model.factors import Adapter, Factors, adapter_norm, sum_adapters, truncate
from model.package import Dtype, component_bytes, pack_adapter, package_bytes, unpack_adapter

few = settings(deadline=None, max_examples=25)
INTEGERS: tuple[Dtype, ...] = ("int4", "int8")
dtypes = st.sampled_from(["int4", "int8", "fp16", "fp32"])
SHAPES = {"bias": (4, 1), "narrow": (6, 9), "wide": (20, 45), "tall": (30, 8)}


def _adapter(seed: int, rank: int = 6) -> dict[str, Factors]:
    """Layers of different sizes and lengths whose singular values fall off."""
    generator = torch.Generator().manual_seed(seed)
    adapter = {}
    for name, (out, inner) in SHAPES.items():
        r = min(rank, out, inner)
        size = 4 * torch.rand(1, generator=generator, dtype=torch.float64) ** 2
        falling = size * 0.5 ** torch.arange(r, dtype=torch.float64)
        adapter[name] = Factors(
            torch.randn(out, r, generator=generator, dtype=torch.float64) * falling,
            torch.randn(r, inner, generator=generator, dtype=torch.float64),
        )
    return adapter


def _diagonal(values: list[float], out: int = 4, inner: int = 5) -> Factors:
    """A layer with these singular values."""
    r = len(values)
    return Factors(
        torch.eye(out, r, dtype=torch.float64) * torch.tensor(values, dtype=torch.float64),
        torch.eye(r, inner, dtype=torch.float64),
    )


def _ranks(adapter: Adapter) -> dict[str, int]:
    return {name: factors.rank for name, factors in adapter.items()}


def _distance(one: Adapter, other: Adapter) -> float:
    """From the dense products: a norm by Gram matrices sees no difference below 1e-8 of the terms."""
    apart = sum_adapters([(1.0, one), (-1.0, other)])
    return math.hypot(*(float(factors.product().norm()) for factors in apart.values()))


@few
@given(seed=st.integers(0, 2**31), budget=st.integers(250, 6000), dtype=dtypes)
def test_the_budget_is_never_exceeded(seed: int, budget: int, dtype: Dtype) -> None:
    try:
        sent = fit_to_bytes(_adapter(seed), budget, dtype)
    except PackageError:
        return
    assert sent
    assert len(pack_adapter(sent, dtype)) <= budget


@few
@given(seed=st.integers(0, 2**31), budget=st.integers(500, 3000), dtype=st.sampled_from(INTEGERS))
def test_what_was_passed_over_was_worth_less_or_did_not_fit(seed: int, budget: int, dtype: Dtype) -> None:
    adapter = _adapter(seed)
    sent = fit_to_bytes(adapter, budget, dtype)
    worth = {name: _worth(f, dtype) for name, f in adapter.items()}
    least = min(worth[name][f.rank - 1] for name, f in sent.items())
    sizes = {name: (*SHAPES[name], f.rank) for name, f in sent.items()}
    for name in adapter:
        k = sent[name].rank if name in sent else 0
        if k < len(worth[name]) and worth[name][k] > least:
            assert package_bytes({**sizes, name: (*SHAPES[name], k + 1)}, dtype) > budget


def _worth(factors: Factors, dtype: Dtype) -> list[float]:
    """``σ² / bytes`` from a dense singular value decomposition."""
    cost = component_bytes(factors.B.shape[0], factors.A.shape[1], dtype)
    sigmas = torch.linalg.svdvals(factors.product())[: factors.rank]
    return (sigmas.square() / cost).tolist()


@few
@given(seed=st.integers(0, 2**31), n_components=st.integers(1, 9))
def test_layers_of_one_size_get_the_ranks_that_trying_all_finds(seed: int, n_components: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(3, 3, generator=generator, dtype=torch.float64).sort(descending=True).values + 0.01
    adapter = {name: _diagonal(row) for name, row in zip("abc", values.tolist(), strict=True)}
    budget = package_bytes(dict.fromkeys("abc", (4, 5, 3)), "int8") - 13 * (9 - n_components)
    sent = fit_to_bytes(adapter, budget, "int8")
    energy = {
        ranks: sum(float(values[i, :r].square().sum()) for i, r in enumerate(ranks))
        for ranks in itertools.product(range(4), repeat=3)
        if package_bytes({name: (4, 5, r) for name, r in zip("abc", ranks, strict=True) if r}, "int8")
        <= budget
    }
    best = max(energy.values())
    lost = _distance(adapter, sent) ** 2
    whole = adapter_norm(adapter) ** 2
    # the order leaves out a layer's entry in the index, which is at most one more component here
    assert best - float(values.square().max()) <= whole - lost <= best + 1e-9
    if len(sent) == 3:
        assert whole - lost == pytest.approx(best)


def test_ranks_by_hand() -> None:
    adapter = {"a": _diagonal([5.0, 1.0]), "b": _diagonal([4.0, 3.0, 2.0])}  # one size: order 5 4 3 2 1
    for n_components, ranks in ((2, (1, 1)), (3, (1, 2)), (4, (1, 3)), (5, (2, 3))):
        budget = package_bytes({"a": (4, 5, ranks[0]), "b": (4, 5, ranks[1])}, "int8")
        assert _ranks(fit_to_bytes(adapter, budget, "int8")) == dict(zip("ab", ranks, strict=True)), (
            n_components
        )


def test_a_small_layer_fills_what_a_large_one_leaves() -> None:
    adapter = {"large": _diagonal([9.0, 8.0], 50, 90), "small": _diagonal([0.1])}
    assert _ranks(fit_to_bytes(adapter, 450, "int8")) == {"large": 1, "small": 1}
    assert _ranks(fit_to_bytes(adapter, 2000, "int8")) == {"large": 2, "small": 1}


@few
@given(seed=st.integers(0, 2**31), dtype=dtypes)
def test_a_large_budget_loses_nothing(seed: int, dtype: Dtype) -> None:
    adapter = _adapter(seed)
    sent = fit_to_bytes(adapter, 10**6, dtype)
    assert _distance(sent, adapter) <= 1e-9 * adapter_norm(adapter)
    assert _ranks(sent) == {name: truncate(f, 99)[0].rank for name, f in adapter.items()}


def test_ranks_that_hold_only_rounding_are_not_sent() -> None:
    twice = {name: Factors(f.B.repeat(1, 2), f.A.repeat(2, 1)) for name, f in _adapter(1, rank=2).items()}
    assert all(rank <= 2 for rank in _ranks(fit_to_bytes(twice, 10**6, "int8")).values())


def test_half_the_bits_keep_more_energy_under_one_budget() -> None:
    adapter = {"w": _diagonal([0.9**k for k in range(40)], 60, 200)}
    kept = {d: energy_kept(adapter, fit_to_bytes(adapter, 4000, d)) for d in INTEGERS}
    assert kept["int4"] > kept["int8"] > 0.5


def test_a_budget_below_the_best_component_is_refused_with_both_numbers() -> None:
    adapter = {"large": _diagonal([9.0], 50, 90), "small": _diagonal([1e-6])}
    need = package_bytes({"large": (50, 90, 1)}, "int8")
    assert _ranks(fit_to_bytes(adapter, need, "int8")) == {"large": 1}
    with pytest.raises(PackageError, match=f"makes {need} bytes, the budget is {need - 1}"):
        fit_to_bytes(adapter, need - 1, "int8")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_zero_adapter_sends_one_zero_component_of_the_cheapest_layer(dtype: Dtype) -> None:
    zero = {name: Factors(0 * f.B, f.A) for name, f in _adapter(1).items()}
    for sent in (fit_to_bytes(zero, 400, dtype), keep_energy(zero, 0.9)):
        assert _ranks(sent) == {"bias": 1}
        assert not unpack_adapter(pack_adapter(sent, dtype))["bias"].product().any()


def test_no_layers_and_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ShapeError, match="no layers"):
        fit_to_bytes({}, 1000, "int8")
    broken = {"w": Factors(torch.tensor([[math.nan]]), torch.ones(1, 3))}
    with pytest.raises(ShapeError, match="NaN or infinite") as caught:
        keep_energy(broken, 0.9)
    assert caught.value.where == "layer w"


@few
@given(seed=st.integers(0, 2**31), energy=st.floats(0.01, 1.0), dtype=dtypes)
def test_the_energy_asked_for_is_kept(seed: int, energy: float, dtype: Dtype) -> None:
    adapter = _adapter(seed)
    kept = keep_energy(adapter, energy, dtype)
    assert energy_kept(adapter, kept) >= energy - 1e-9


@few
@given(seed=st.integers(0, 2**31), energy=st.floats(0.5, 0.99))
def test_one_component_less_would_not_keep_it(seed: int, energy: float) -> None:
    adapter = _adapter(seed)
    kept = keep_energy(adapter, energy)
    last = min(kept, key=lambda name: _worth(adapter[name], "int8")[kept[name].rank - 1])
    fewer = {name: f for name, f in kept.items() if name != last}
    if kept[last].rank > 1:
        fewer[last] = truncate(kept[last], kept[last].rank - 1)[0]
    assert energy_kept(adapter, fewer) < energy


def test_energy_by_hand() -> None:
    adapter = {
        "a": _diagonal([5.0, 1.0]),
        "b": _diagonal([4.0, 3.0, 2.0]),
    }  # squares 25 16 9 4 1, together 55
    asked = {0.01: {"a": 1}, 0.46: {"a": 1, "b": 1}, 0.9: {"a": 1, "b": 2}, 0.91: {"a": 1, "b": 3}}
    for energy, ranks in {**asked, 1.0: {"a": 2, "b": 3}}.items():
        assert _ranks(keep_energy(adapter, energy)) == ranks


@pytest.mark.parametrize("energy", [0.0, -1.0, 1.1, math.nan])
def test_an_energy_out_of_bounds_is_refused(energy: float) -> None:
    with pytest.raises(ConfigError, match="energy"):
        keep_energy(_adapter(1), energy)


@few
@given(seed=st.integers(0, 2**31), budget=st.integers(600, 3000), dtype=dtypes)
def test_what_is_sent_and_what_stays_behind_are_the_whole(seed: int, budget: int, dtype: Dtype) -> None:
    wanted = _adapter(seed)
    sent = unpack_adapter(pack_adapter(fit_to_bytes(wanted, budget, dtype), dtype))
    rest = left_behind(wanted, sent, 100)
    assert list(rest) == sorted(wanted)
    assert _distance(sum_adapters([(1.0, sent), (1.0, rest)]), wanted) <= 1e-6 * adapter_norm(wanted)
    assert energy_kept(wanted, sent) == pytest.approx(1 - (adapter_norm(rest) / adapter_norm(wanted)) ** 2)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_over_rounds_all_that_was_sent_and_the_last_rest_add_up_to_all_that_was_wanted(dtype: Dtype) -> None:
    rest: Adapter = {}
    wanted_sum: Adapter = {}
    sent_sum: Adapter = {}
    for number in range(8):
        update = _adapter(number)
        wanted_sum = sum_adapters([(1.0, wanted_sum), (1.0, update)])
        wanted = sum_adapters([(1.0, rest), (1.0, update)])
        sent = unpack_adapter(pack_adapter(fit_to_bytes(wanted, 450, dtype), dtype))
        rest = left_behind(wanted, sent, 100)
        sent_sum = sum_adapters([(1.0, sent_sum), (1.0, sent)])
    assert adapter_norm(rest) > 0.05 * adapter_norm(wanted_sum)  # the budget bites
    together = sum_adapters([(1.0, sent_sum), (1.0, rest)])
    assert _distance(together, wanted_sum) <= 1e-6 * adapter_norm(wanted_sum)


def test_a_standing_rest_is_sent_within_a_few_rounds() -> None:
    """Nothing new to send: every round the same budget works on what is left, to the limit of int4's own error."""
    rest: Adapter = _adapter(4)
    norms = [adapter_norm(rest)]
    for _ in range(6):
        sent = unpack_adapter(pack_adapter(fit_to_bytes(rest, 900, "int4"), "int4"))
        rest = left_behind(rest, sent, 100)
        norms.append(adapter_norm(rest))
    assert all(after < before for before, after in itertools.pairwise(norms))
    assert norms[-1] < 0.05 * norms[0]


def test_the_rest_is_cut_to_its_rank_budget() -> None:
    wanted = _adapter(2)
    rest = left_behind(wanted, {}, 2)
    assert max(_ranks(rest).values()) == 2
    for name, factors in wanted.items():
        torch.testing.assert_close(rest[name].product(), truncate(factors, 2)[0].product())


def test_energy_kept_by_hand() -> None:
    wanted = {"a": _diagonal([4.0]), "b": _diagonal([3.0])}
    assert energy_kept(wanted, wanted) == pytest.approx(1.0)
    assert energy_kept(wanted, {"a": wanted["a"]}) == pytest.approx(16 / 25)
    assert energy_kept(wanted, {}) == pytest.approx(0.0)
    assert energy_kept(wanted, {"a": _diagonal([-4.0]), "b": wanted["b"]}) == pytest.approx(1 - 64 / 25)


def test_energy_kept_of_nothing() -> None:
    zero = {"a": _diagonal([0.0])}
    assert energy_kept(zero, zero) == energy_kept(zero, {}) == 1.0
    assert energy_kept(zero, {"a": _diagonal([1.0])}) == -math.inf
