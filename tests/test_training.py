"""Training as a value: interrupted anywhere, it ends with the same bits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from safetensors.torch import load, save
from torch import Generator, Tensor

from model.batches import augmented_batches, steps_per_epoch
from model.errors import ConfigError
from model.lora import LoraSpec, inject
from model.network import build_net
from model.seeds import derive_generator
from model.training import Batch, ColdStart, Group, Training

STEPS = 6


def _slices(n: int = 5) -> tuple[Tensor, Tensor]:
    masks = torch.zeros(n, 16, 16, dtype=torch.long)
    masks[:, 3:13, 3:13] = 2
    masks[:, 5:11, 5:11] = 3
    masks[:, 4:12, 0:3] = 1
    noise = torch.randn(n, 1, 16, 16, generator=derive_generator(3))
    return masks[:, None].float() + 0.1 * noise, masks


def _training(steps: int = STEPS, proximal: float = 0.0) -> Training:
    net = build_net((4, 8), derive_generator(1))
    generator = derive_generator(2)
    trainable = inject(net, LoraSpec(rank=2, scaling=2.0, wide_from=200), generator)
    images, masks = _slices()
    return Training(
        net,
        [Group(trainable.factors, 5e-3), Group(trainable.whole, 1e-3)],
        augmented_batches(images, masks, batch=2, seed=4),
        steps,
        1e-4,
        generator,
        proximal=proximal,
    )


def _run(training: Training) -> list[Tensor]:
    while training.done < training.steps:
        training.step()
    return [p.detach().clone() for p in training.net.parameters()]


def _same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("stopped_after", [0, 1, 3, 5, 6])
def test_interrupted_training_ends_bit_for_bit_like_uninterrupted_training(stopped_after: int) -> None:
    whole = _training()
    expected = _run(whole)
    first = _training()
    for _ in range(stopped_after):
        first.step()
    kept = save(first.state())
    second = _training()
    second.step()  # whatever it did before is forgotten
    second.restore(load(kept))
    assert second.done == stopped_after
    assert _same(_run(second), expected)
    assert second.curve == whole.curve


def test_a_training_that_went_on_can_be_taken_back_to_any_earlier_state() -> None:
    training = _training()
    fresh = training.state()
    training.step()
    after_one = training.state()
    expected = _run(training)
    for state in (after_one, fresh):
        training.restore(state)
        assert _same(_run(training), expected)


def test_a_saved_state_does_not_change_while_training_goes_on() -> None:
    training = _training()
    training.step()
    state = training.state()
    kept = {name: value.clone() for name, value in state.items()}
    training.step()
    assert all(torch.equal(state[name], kept[name]) for name in kept)


def test_training_does_not_depend_on_the_global_generator() -> None:
    first = _run(_training())
    torch.rand(9)
    assert _same(_run(_training()), first)


def test_frozen_weights_stay_and_the_others_move() -> None:
    training = _training()
    frozen = {n: p.clone() for n, p in training.net.named_parameters() if not p.requires_grad}
    moving = [p.detach().clone() for p in training.parameters]
    _run(training)
    assert frozen
    assert all(torch.equal(training.net.get_parameter(name), W) for name, W in frozen.items())
    assert not any(torch.equal(now, W) for now, W in zip(training.parameters, moving, strict=True))


def test_the_learning_rates_fall_as_a_cosine_from_their_peaks() -> None:
    training = _training(steps=4)
    seen = []
    for _ in range(4):
        training.step()
        seen.append([group["lr"] for group in training.optimizer.param_groups])
    shape = [1.0, 0.8535533905932737, 0.5, 0.14644660940672627]  # ½ (1 + cos(π k / 4))
    for rates, fade in zip(seen, shape, strict=True):
        assert rates == pytest.approx([5e-3 * fade, 1e-3 * fade])


def test_a_group_without_parameters_is_left_out() -> None:
    net = build_net((4, 8), derive_generator(1))
    images, masks = _slices()
    training = Training(
        net,
        [Group([], 1.0), Group(net.parameters(), 1e-3)],
        augmented_batches(images, masks, batch=5, seed=4),
        1,
        0.0,
        derive_generator(2),
    )
    training.step()
    assert [group["lr"] for group in training.optimizer.param_groups] == [1e-3]


def test_training_learns() -> None:
    net = build_net((4, 8, 16), derive_generator(1))
    images, masks = _slices(4)

    def same_batch(step: int, generator: Generator) -> Batch:
        return images, masks

    training = Training(net, [Group(net.parameters(), 1e-2)], same_batch, 30, 1e-4, derive_generator(2))
    _run(training)
    assert training.curve[-1] < 0.5 * training.curve[0]


def _grads(training: Training) -> list[Tensor]:
    return [p.grad.clone() for p in training.parameters if p.grad is not None]


def test_the_proximal_term_adds_mu_times_the_distance_from_the_start() -> None:
    mu = 50.0
    plain, prox = _training(), _training(proximal=mu)
    start = [p.detach().clone() for p in prox.parameters]
    plain.step()
    prox.step()
    assert _same(plain.parameters, prox.parameters)  # no distance yet, no pull
    moved = [p.detach() - s for p, s in zip(prox.parameters, start, strict=True)]
    plain.step()
    prox.step()
    assert max(float(d.abs().max()) for d in moved) > 1e-3
    for ours, theirs, d in zip(_grads(prox), _grads(plain), moved, strict=True):
        torch.testing.assert_close(ours, theirs + mu * d)


def test_a_strong_proximal_term_keeps_training_near_its_start() -> None:
    lengths = []
    for mu in (0.0, 100.0):
        training = _training(steps=12, proximal=mu)
        start = [p.detach().clone() for p in training.parameters]
        _run(training)
        lengths.append(
            sum(
                float((p.detach() - s).square().sum())
                for p, s in zip(training.parameters, start, strict=True)
            )
        )
    assert lengths[1] < 0.25 * lengths[0]


@pytest.mark.parametrize("stopped_after", [0, 1, 4])
def test_interrupted_proximal_training_keeps_its_anchor(stopped_after: int) -> None:
    expected = _run(_training(proximal=20.0))
    first = _training(proximal=20.0)
    for _ in range(stopped_after):
        first.step()
    second = _training(proximal=20.0)
    second.step()  # moves away from the start before it is taken back
    second.restore(load(save(first.state())))
    assert _same(_run(second), expected)
    assert not _same(_run(_training()), expected)


def test_the_proximal_term_is_clipped_with_the_rest() -> None:
    net = build_net((4, 8), derive_generator(1))
    images, masks = _slices()
    training = Training(
        net,
        [Group(net.parameters(), 1e-2)],
        augmented_batches(images, masks, batch=5, seed=4),
        3,
        0.0,
        derive_generator(2),
        cold=ColdStart(warm_up=1, clip_norm=0.5),
        proximal=1e4,
    )
    training.step()
    training.step()
    assert math.sqrt(sum(float(g.square().sum()) for g in _grads(training))) == pytest.approx(0.5, rel=1e-4)


def test_a_negative_proximal_weight_is_refused() -> None:
    with pytest.raises(ConfigError):
        _training(proximal=-1.0).step()


def _numbered(n: int, batch: int, seed: int = 4) -> list[list[int]]:
    """Which slices the batches of two epochs hold, told by a mask value of their own."""
    masks = torch.arange(1, n + 1)[:, None, None].expand(n, 12, 12).contiguous()
    draw = augmented_batches(torch.zeros(n, 1, 12, 12), masks, batch, seed)
    generator = derive_generator(1)
    drawn = [draw(step, generator)[1] for step in range(2 * steps_per_epoch(n, batch))]
    return [[int(mask[6, 6]) for mask in chosen] for chosen in drawn]


@pytest.mark.parametrize(("n", "batch"), [(6, 2), (7, 3), (5, 8), (4, 1)])
def test_every_epoch_shows_every_slice_once(n: int, batch: int) -> None:
    batches = _numbered(n, batch)
    half = len(batches) // 2
    assert half == steps_per_epoch(n, batch)
    for epoch in (batches[:half], batches[half:]):
        assert Counter(i for chosen in epoch for i in chosen) == Counter(range(1, n + 1))


def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    batches = _numbered(24, 24)
    assert batches[0] != batches[1]
    assert _numbered(24, 24, seed=5)[0] != batches[0]


def test_a_step_draws_the_same_slices_whatever_was_drawn_before() -> None:
    images, masks = _slices()
    draw = augmented_batches(images, masks, 2, seed=4)
    for step in range(4):
        draw(step, derive_generator(8))
    again = augmented_batches(images, masks, 2, seed=4)
    for ours, theirs in zip(draw(4, derive_generator(9)), again(4, derive_generator(9)), strict=True):
        assert torch.equal(ours, theirs)


def test_steps_per_epoch_by_hand() -> None:
    assert [steps_per_epoch(n, 8) for n in (1, 8, 9, 16)] == [1, 1, 2, 2]
