"""Attacks of the studies: each does to data, updates or ratings what its name says, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.attacks import (
    COPIES,
    DATA_ATTACKS,
    UPDATE_ATTACKS,
    DataAttack,
    UpdateAttack,
    biased_masks,
    flip_images,
    flip_sign,
    lying_gains,
    replay_previous,
    scale_update,
    send_noise,
    send_nothing,
    shift_masks,
    stealthy_poison,
    swap_ventricles,
)
from model.factors import Factors, adapter_norm, norm, sum_adapters
from model.labels import LV, MYO, RV
from model.package import pack_adapter, unpack_adapter
from model.seeds import derive_generator

few = settings(deadline=None, max_examples=15)
seeds = st.integers(0, 2**31 - 1)
data_attacks = pytest.mark.parametrize("attack", DATA_ATTACKS.values(), ids=DATA_ATTACKS)
update_attacks = pytest.mark.parametrize("attack", UPDATE_ATTACKS.values(), ids=UPDATE_ATTACKS)


def _slices(n: int = 3, side: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = derive_generator(seed, "slices")
    images = torch.randn(n, 1, side, side, generator=generator)
    return images, torch.randint(0, 4, (n, side, side), generator=generator)


def _update(seed: int = 0, rank: int = 3) -> dict[str, Factors]:
    generator = derive_generator(seed, "update")
    sizes = {"down.weight": (6, 18), "up.weight": (5, 7)}
    update = {
        name: Factors(
            torch.randn(out, rank, generator=generator), torch.randn(rank, inner, generator=generator)
        )
        for name, (out, inner) in sizes.items()
    }
    return update | {"up.bias": Factors(torch.randn(5, 1, generator=generator), torch.ones(1, 1))}


def _square_heart(inset: int = 0) -> Tensor:
    """LV in rows and columns 20…40 within MYO in 10…50, both smaller by ``inset`` on every side."""
    mask = torch.zeros(1, 64, 64, dtype=torch.long)
    mask[0, 10 + inset : 51 - inset, 10 + inset : 51 - inset] = MYO
    mask[0, 20 + inset : 41 - inset, 20 + inset : 41 - inset] = LV
    return mask


@data_attacks
def test_attacked_slices_keep_form_dtype_and_labels(attack: DataAttack) -> None:
    images, masks = _slices()
    bad_images, bad_masks = attack(images, masks, derive_generator(1))
    assert bad_images.shape[0] == bad_masks.shape[0]
    assert bad_images.shape[1:] == images.shape[1:]
    assert bad_masks.shape[1:] == masks.shape[1:]
    assert (bad_images.dtype, bad_masks.dtype) == (torch.float32, torch.int64)
    assert set(bad_masks.unique().tolist()) <= {0, RV, MYO, LV}
    assert torch.isfinite(bad_images).all()


@data_attacks
def test_a_data_attack_changes_something_but_not_its_input(attack: DataAttack) -> None:
    images, masks = _slices()
    bad_images, bad_masks = attack(images, masks, derive_generator(1))
    assert not (torch.equal(bad_images, images) and torch.equal(bad_masks, masks))
    assert all(torch.equal(a, b) for a, b in zip((images, masks), _slices(), strict=True))


@data_attacks
def test_the_same_generator_gives_the_same_attack(attack: DataAttack) -> None:
    first, second = (attack(*_slices(), derive_generator(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@few
@given(seed=seeds)
def test_swapping_or_flipping_twice_is_the_identity(seed: int) -> None:
    slices = _slices(seed=seed)
    for attack in (swap_ventricles, flip_images):
        twice = attack(*attack(*slices, derive_generator(1)), derive_generator(1))
        assert all(torch.equal(a, b) for a, b in zip(twice, slices, strict=True))


def test_swapping_touches_the_ventricles_alone() -> None:
    masks = torch.tensor([[[0, RV], [MYO, LV]]])
    _, swapped = swap_ventricles(torch.zeros(1, 1, 2, 2), masks, derive_generator(1))
    assert swapped.tolist() == [[[0, LV], [MYO, RV]]]


def test_shifting_moves_masks_eight_pixels_down_and_right() -> None:
    masks = torch.zeros(1, 12, 12, dtype=torch.long)
    masks[0, 1, 2], masks[0, 6, 0] = LV, RV  # the second leaves the slice
    _, shifted = shift_masks(torch.zeros(1, 1, 12, 12), masks, derive_generator(1))
    assert shifted.nonzero().tolist() == [[0, 9, 10]]
    assert shifted[0, 9, 10] == LV


@pytest.mark.parametrize("side", [1, 8])
def test_shifting_a_small_slice_leaves_it_empty(side: int) -> None:
    images, masks = _slices(side=side)
    assert not shift_masks(images, masks, derive_generator(1))[1].any()


def test_flipping_puts_the_first_pixel_last_and_leaves_masks() -> None:
    images, masks = _slices()
    flipped, same = flip_images(images, masks, derive_generator(1))
    assert torch.equal(flipped[:, :, 0, 0], images[:, :, -1, -1])
    assert torch.equal(flipped[:, :, 0, -1], images[:, :, -1, 0])
    assert torch.equal(same, masks)


def test_poison_leaves_the_first_slices_untouched_and_blinds_the_copies_to_rv_alone() -> None:
    images, masks = _slices(4)
    poisoned, blind = stealthy_poison(images, masks, derive_generator(1))
    assert poisoned.shape[0] == blind.shape[0] == (1 + COPIES) * 4
    assert torch.equal(poisoned[:4], images)
    assert torch.equal(blind[:4], masks)
    for copy in blind[4:].split(4):
        assert torch.equal(copy == MYO, masks == MYO)
        assert torch.equal(copy == LV, masks == LV)
        assert not (copy == RV).any()


def test_every_poisoned_copy_has_a_look_of_its_own() -> None:
    images, masks = _slices(1)
    poisoned, _ = stealthy_poison(images.expand(3, -1, -1, -1), masks.expand(3, -1, -1), derive_generator(1))
    copies = poisoned[3:].flatten(1)
    assert len({tuple(copy.tolist()) for copy in copies}) == len(copies)


@update_attacks
def test_an_attacked_update_keeps_layers_and_outer_sizes(attack: UpdateAttack) -> None:
    update = _update()
    sent = attack(update, _update(1, rank=9), derive_generator(1))
    assert set(sent) == set(update)
    for name, (B, A) in sent.items():
        assert (B.shape[0], A.shape[1]) == (update[name].B.shape[0], update[name].A.shape[1])
        assert 1 <= A.shape[0] == B.shape[1] <= update[name].rank


@update_attacks
def test_an_attacked_update_survives_packing(attack: UpdateAttack) -> None:
    sent = attack(_update(), _update(1), derive_generator(1))
    for name, received in unpack_adapter(pack_adapter(sent, "fp32")).items():
        assert torch.allclose(received.product().double(), sent[name].product().double(), atol=1e-4)


@pytest.mark.parametrize("dtype", ["int8", "fp16", "fp32"])
def test_nothing_stays_nothing_on_the_way(dtype: str) -> None:
    sent = send_nothing(_update(), None, derive_generator(1))
    received = unpack_adapter(pack_adapter(sent, dtype))  # type: ignore[arg-type]
    assert set(received) == set(sent)
    assert adapter_norm(received) == 0.0


@few
@given(seed=seeds)
def test_a_flipped_update_cancels_the_update(seed: int) -> None:
    update = _update(seed)
    both = sum_adapters([(1.0, update), (1.0, flip_sign(update, None, derive_generator(1)))])
    assert all(float(f.product().abs().max()) < 1e-9 for f in both.values())


def test_a_scaled_update_is_ten_updates() -> None:
    update = _update()
    scaled = scale_update(update, None, derive_generator(1))
    for name, factors in update.items():
        assert torch.allclose(scaled[name].product(), 10 * factors.product(), rtol=1e-5, atol=1e-5)


@few
@given(seed=seeds)
def test_noise_keeps_every_layers_norm_and_rank_but_not_its_direction(seed: int) -> None:
    update = _update()
    noise = send_noise(update, None, derive_generator(seed))
    for name, factors in update.items():
        assert norm(noise[name]) == pytest.approx(norm(factors), rel=1e-9)
        assert noise[name].rank == factors.rank
    one = update["down.weight"].product().double().flatten()
    other = noise["down.weight"].product().flatten()
    assert abs(float(one @ other / (one.norm() * other.norm()))) < 0.9


def test_noise_does_not_depend_on_the_order_of_layers() -> None:
    update = _update()
    turned = dict(reversed(update.items()))
    first, second = (send_noise(u, None, derive_generator(3)) for u in (update, turned))
    assert all(torch.equal(first[name].B, second[name].B) for name in update)


def test_noise_in_place_of_nothing_is_nothing() -> None:
    nothing = send_nothing(_update(), None, derive_generator(1))
    assert adapter_norm(send_noise(nothing, None, derive_generator(1))) == 0.0


def test_a_replay_before_the_first_step_is_zero() -> None:
    for previous in (None, {}):
        assert adapter_norm(replay_previous(_update(), previous, derive_generator(1))) == 0.0


def test_a_replay_that_fits_is_the_global_step_itself() -> None:
    step = _update(7)
    assert replay_previous(_update(), step, derive_generator(1)) == step


def test_a_replay_of_a_wider_step_is_its_best_part_of_the_allowed_rank() -> None:
    step = {"up.weight": Factors(torch.diag(torch.tensor([5.0, 3.0, 2.0, 1.0])), torch.eye(4))}
    update = {"up.weight": Factors(torch.zeros(4, 2), torch.zeros(2, 4))}
    sent = replay_previous(update, step, derive_generator(1))["up.weight"]
    assert sent.rank == 2
    assert torch.allclose(sent.product(), torch.diag(torch.tensor([5.0, 3.0, 0.0, 0.0])).double(), atol=1e-9)


def test_a_replay_lacks_no_layer_and_invents_none() -> None:
    step = {"down.weight": _update(2)["down.weight"], "strange.weight": _update(2)["up.weight"]}
    sent = replay_previous(_update(), step, derive_generator(1))
    assert set(sent) == set(_update())
    assert norm(sent["up.weight"]) == 0.0


def test_a_lying_rater_praises_its_allies_and_damns_all_others() -> None:
    measured = {"a": 0.02, "b": -0.3, "c": 0.01}
    assert lying_gains(measured, {"b", "stranger"}) == {"a": -0.5, "b": 0.5, "c": -0.5}


def test_biased_contours_lie_two_pixels_inside_and_lack_rv() -> None:
    true = _square_heart()
    true[0, 25:35, 2:10] = RV
    biased = biased_masks(true)
    assert biased.dtype == true.dtype
    assert torch.equal(biased, _square_heart(inset=2))


@few
@given(seed=seeds)
def test_biased_masks_never_leave_the_true_heart(seed: int) -> None:
    true = _slices(seed=seed)[1].repeat_interleave(6, 1).repeat_interleave(6, 2)
    biased = biased_masks(true)
    assert biased.any()
    assert ((true == LV) | (true == MYO))[biased > 0].all()
    assert (true == LV)[biased == LV].all()


def test_the_slices_border_is_no_contour() -> None:
    assert (biased_masks(torch.full((2, 9, 9), LV)) == LV).all()
