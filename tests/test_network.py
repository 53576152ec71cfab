"""The network: every layer can carry an adapter, and nothing of a site stays in it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.labels import N_CLASSES
from model.network import build_net, is_wide
from model.seeds import derive_generator, derive_seed

SMALL = (4, 8, 16)
PAPER = (32, 64, 128, 256, 512)


def test_every_weight_belongs_to_a_plain_convolution() -> None:
    net = build_net(SMALL)
    of_convolutions = {
        f"{name}.{kind}"
        for name, module in net.named_modules()
        if type(module) is nn.Conv2d
        for kind, _ in module.named_parameters(recurse=False)
    }
    assert of_convolutions == {name for name, _ in net.named_parameters()}
    assert not any(isinstance(m, nn.ConvTranspose2d) for m in net.modules())


def test_the_state_is_its_parameters_and_no_buffers() -> None:
    net = build_net(SMALL)
    assert list(net.buffers()) == []
    assert set(net.state_dict()) == {name for name, _ in net.named_parameters()}


def test_only_the_last_convolution_has_a_bias() -> None:
    biases = [name for name, _ in build_net(SMALL).named_parameters() if name.endswith(".bias")]
    assert biases == ["up.1.1.conv.unit0.conv.bias"]


def test_the_paper_scale_weighs_26_mb() -> None:
    with torch.device("meta"):
        net = build_net(PAPER)
    assert sum(p.numel() for p in net.parameters()) * 4 / 1e6 == pytest.approx(26.0, abs=0.1)


@pytest.mark.parametrize(
    ("channels", "height", "width"),
    [((4, 8), 6, 10), (SMALL, 12, 20), ((4, 8, 16, 16), 24, 40), ((2, 2, 4, 4, 4), 48, 80)],
)
def test_logits_have_the_size_of_the_slice(channels: tuple[int, ...], height: int, width: int) -> None:
    net = build_net(channels, derive_generator(1))
    assert net(torch.zeros(2, 1, height, width)).shape == (2, N_CLASSES, height, width)


def test_every_weight_gets_a_gradient() -> None:
    net = build_net(SMALL, derive_generator(1))
    net(torch.randn(2, 1, 16, 16, generator=derive_generator(2))).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_slice_is_answered_the_same_alone_and_in_company() -> None:
    net = build_net(SMALL, derive_generator(1))
    slices = torch.randn(3, 1, 16, 16, generator=derive_generator(2))
    torch.testing.assert_close(net(slices)[:1], net(slices[:1]), rtol=1e-4, atol=1e-5)


def test_training_and_evaluation_mode_answer_alike() -> None:
    net = build_net(SMALL, derive_generator(1))
    slices = torch.randn(2, 1, 16, 16, generator=derive_generator(2))
    assert torch.equal(net.train()(slices), net.eval()(slices))


def test_initial_weights_come_from_the_given_generator_alone() -> None:
    first = build_net(SMALL, derive_generator(7)).state_dict()
    torch.rand(5)  # the global generator moves on
    second = build_net(SMALL, derive_generator(7)).state_dict()
    other = build_net(SMALL, derive_generator(8)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if first[name].ndim == 4)


def test_wide_means_a_convolution_with_at_least_so_many_weights() -> None:
    weight = torch.zeros(8, 4, 3, 3)
    assert is_wide(weight, 288)
    assert not is_wide(weight, 289)
    assert not is_wide(torch.zeros(1000), 10)


def test_seeds_differ_by_purpose_and_fit_into_63_bits() -> None:
    seeds = {derive_seed(1), derive_seed(2), derive_seed(1, "train"), derive_seed(1, "train", 7)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "train", 7) == derive_seed(1, "train", 7)
