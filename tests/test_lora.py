"""Adapters against PEFT, which injects and trains them: what we read is what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from model.factors import fold
from model.lora import LoraSpec, Trainable, inject, layer_rank, rank_for_volume, read_adapter
from model.network import build_net, is_wide, level_of
from model.package import check_fit
from model.seeds import derive_generator

CHANNELS = (4, 8, 16)
ALL_WIDE = LoraSpec(rank=4, scaling=2.0, wide_from=0)
SOME_WIDE = LoraSpec(rank=4, scaling=2.0, wide_from=600)
NONE_WIDE = LoraSpec(rank=4, scaling=2.0, wide_from=10**9)

few = settings(deadline=None, max_examples=50)


def _slices(seed: int = 5) -> Tensor:
    return torch.randn(2, 1, 16, 16, generator=derive_generator(seed))


def _injected(spec: LoraSpec, seed: int = 1) -> tuple[nn.Module, dict[str, Tensor], Trainable]:
    """A network with branches, the state dict it started from, and what is trained."""
    net = build_net(CHANNELS, derive_generator(1))
    start = {name: W.clone() for name, W in net.state_dict().items()}
    return net, start, inject(net, spec, derive_generator(seed, "A"))


def _train(net: nn.Module, trainable: Trainable, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW([*trainable.factors, *trainable.whole], lr=0.02)
    for k in range(steps):
        optimizer.zero_grad()
        net(_slices(k)).square().mean().backward()
        optimizer.step()


def _branches(net: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    return ((name, m) for name, m in net.named_modules() if isinstance(m, LoraLayer))


@pytest.mark.parametrize("spec", [ALL_WIDE, SOME_WIDE, NONE_WIDE], ids=["all", "some", "none"])
def test_injection_leaves_the_output_as_it_was(spec: LoraSpec) -> None:
    before = build_net(CHANNELS, derive_generator(1))(_slices())
    assert torch.equal(_injected(spec)[0](_slices()), before)


def test_injection_draws_from_the_given_generator_alone() -> None:
    first = [p.clone() for p in _injected(SOME_WIDE)[2].factors]
    torch.rand(11)  # the global generator moves on
    second = _injected(SOME_WIDE)[2].factors
    other = _injected(SOME_WIDE, seed=2)[2].factors
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("spec", [ALL_WIDE, SOME_WIDE, NONE_WIDE], ids=["all", "some", "none"])
def test_exactly_the_factors_and_the_narrow_layers_are_trained(spec: LoraSpec) -> None:
    net, start, trainable = _injected(spec)
    trained = {id(p) for p in net.parameters() if p.requires_grad}
    assert trained == {id(p) for p in (*trainable.factors, *trainable.whole)}
    wide = [name for name, W in start.items() if is_wide(W, spec.wide_from)]
    assert len(trainable.factors) == 2 * len(wide)
    assert len(trainable.whole) == len(start) - len(wide)


def test_a_bias_is_trained_even_when_its_convolution_is_wide() -> None:
    net, start, trainable = _injected(ALL_WIDE)
    _train(net, trainable)
    adapter = read_adapter(net, start, ALL_WIDE)
    biases = [name for name in start if name.endswith(".bias")]
    assert biases
    assert all(adapter[name].product().any() for name in biases)


def test_the_folded_network_answers_like_the_trained_one() -> None:
    net, start, trainable = _injected(ALL_WIDE)
    before = net(_slices())
    _train(net, trainable)
    after = net(_slices())
    adapter = read_adapter(net, start, ALL_WIDE)
    fresh = build_net(CHANNELS)
    fresh.load_state_dict(fold(start, adapter))
    assert (after - before).abs().max() > 0.1
    torch.testing.assert_close(fresh(_slices()), after, rtol=1e-3, atol=1e-4)


def test_layers_trained_whole_are_read_at_full_rank_and_nothing_is_cut() -> None:
    net, start, trainable = _injected(NONE_WIDE)
    _train(net, trainable)
    adapter = read_adapter(net, start, NONE_WIDE)
    for name, W in start.items():
        changed = (net.get_parameter(name).detach() - W).double().reshape(W.shape[0], -1)
        torch.testing.assert_close(adapter[name].product(), changed, rtol=0, atol=1e-7)
        assert adapter[name].rank == min(changed.shape)


@pytest.mark.parametrize("levels", [1, 2])
def test_deeper_levels_are_neither_trained_nor_read(levels: int) -> None:
    spec = LoraSpec(rank=4, scaling=2.0, wide_from=600, trained_levels=levels)
    net, start, trainable = _injected(spec)
    _train(net, trainable)
    frozen = {name for name in start if level_of(name, len(CHANNELS)) >= levels}
    adapter = read_adapter(net, start, spec)
    assert frozen and set(adapter) == set(start) - frozen
    now = dict(net.named_parameters())
    assert all(
        torch.equal(now[name], start[name]) and not now[name].requires_grad for name in frozen & set(now)
    )
    assert len(trainable.factors) // 2 + len(trainable.whole) == len(adapter)


def test_no_gradient_flows_through_levels_that_are_not_trained() -> None:
    spec = LoraSpec(rank=4, scaling=2.0, wide_from=600, trained_levels=1)
    net, _, _ = _injected(spec)
    entered = []
    net.down[1].register_forward_hook(lambda _m, given, _out: entered.append(given[0].requires_grad))
    net(_slices()).sum().backward()
    assert entered == [False]


def test_the_delta_of_a_branch_is_the_one_peft_computes() -> None:
    net, start, trainable = _injected(SOME_WIDE)
    _train(net, trainable)
    adapter = read_adapter(net, start, SOME_WIDE)
    checked = 0
    for name, branch in _branches(net):
        theirs = branch.get_delta_weight("site").detach().flatten(1)
        torch.testing.assert_close(adapter[f"{name}.weight"].product().float(), theirs, rtol=1e-4, atol=1e-6)
        checked += 1
    assert checked == sum(is_wide(W, 600) for W in start.values())


def test_our_fold_is_pefts_own_merge() -> None:
    net, start, trainable = _injected(ALL_WIDE)
    _train(net, trainable)
    ours = fold(start, read_adapter(net, start, ALL_WIDE))
    for name, branch in _branches(net):
        branch.merge()
        theirs = branch.get_base_layer().weight.detach()
        torch.testing.assert_close(ours[f"{name}.weight"], theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spec", [ALL_WIDE, SOME_WIDE, NONE_WIDE], ids=["all", "some", "none"])
def test_what_is_read_fits_the_base_and_wide_layers_have_the_rank(spec: LoraSpec) -> None:
    net, start, trainable = _injected(spec)
    _train(net, trainable, steps=1)
    adapter = read_adapter(net, start, spec)
    check_fit(adapter, {name: tuple(W.shape) for name, W in start.items()}, max(CHANNELS))
    wide = {name: W for name, W in start.items() if is_wide(W, spec.wide_from)}
    assert all(adapter[name].rank == layer_rank(W, spec.rank) for name, W in wide.items())


def test_an_untrained_adapter_is_zero() -> None:
    net, start, _ = _injected(SOME_WIDE)
    adapter = read_adapter(net, start, SOME_WIDE)
    assert not any(f.product().any() for f in adapter.values())


def test_the_scaling_multiplies_the_update() -> None:
    deltas = []
    for scaling in (1.0, 3.0):
        spec = LoraSpec(rank=2, scaling=scaling, wide_from=600)
        net, start, trainable = _injected(spec)
        with torch.no_grad():
            for p in trainable.factors:
                p.fill_(0.1)
        deltas.append(read_adapter(net, start, spec)["up.0.0.conv.weight"].product())
    torch.testing.assert_close(deltas[1], 3 * deltas[0])


@pytest.mark.parametrize(
    ("n", "rule", "rank"),
    [
        (400, "sqrt", 16),
        (100, "sqrt", 8),  # 16 · √¼
        (25, "sqrt", 4),
        (4, "sqrt", 4),  # clamped
        (100, "linear", 4),
        (300, "linear", 12),
        (1, "constant", 16),
    ],
)
def test_ranks_by_hand(n: int, rule: Literal["sqrt", "linear", "constant"], rank: int) -> None:
    assert rank_for_volume(n, 400, 4, 16, rule) == rank


@few
@given(n=st.integers(1, 1000), more=st.integers(0, 1000), low=st.integers(1, 8), high=st.integers(8, 64))
def test_more_data_never_means_a_lower_rank(n: int, more: int, low: int, high: int) -> None:
    n_max = n + more + 1
    small, large = (rank_for_volume(k, n_max, low, high, "sqrt") for k in (n, n + more))
    assert low <= small <= large <= high
    assert rank_for_volume(n_max, n_max, low, high, "sqrt") == high


@few
@given(
    out=st.integers(1, 40),
    channels=st.integers(1, 40),
    kernel=st.sampled_from([1, 3]),
    rank=st.integers(1, 99),
)
def test_factors_never_outweigh_the_layer_they_stand_for(
    out: int, channels: int, kernel: int, rank: int
) -> None:
    weight = torch.zeros(out, channels, kernel, kernel)
    r = layer_rank(weight, rank)
    assert 1 <= r <= rank
    assert r == 1 or r * (out + channels * kernel**2) <= weight.numel()


def test_layer_ranks_by_hand() -> None:
    assert layer_rank(torch.zeros(4, 36), 16) == 3  # 144 / 40
    assert layer_rank(torch.zeros(4, 1), 16) == 1  # a bias
    assert layer_rank(torch.zeros(256, 256, 3, 3), 16) == 16
