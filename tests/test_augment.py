"""Augmentation: labels stay labels, the heart stays the right way round."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.augment import augment
from model.seeds import derive_generator

few = settings(deadline=None, max_examples=20)
seeds = st.integers(0, 2**31 - 1)


def _corners(n: int) -> tuple[Tensor, Tensor]:
    """Three discs near the middle: 1 left, 2 above, 3 right; from 1 over 2 to 3 is clockwise."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    mask = torch.zeros(64, 64, dtype=torch.long)
    for label, (row, column) in {1: (36, 24), 2: (22, 32), 3: (36, 40)}.items():
        mask[(y - row) ** 2 + (x - column) ** 2 < 25] = label
    masks = mask.expand(n, 64, 64).contiguous()
    return masks[:, None].float(), masks


def _turning(mask: Tensor) -> float:
    """Twice the signed area of the triangle of the three discs' centres, pixel²."""
    a, b, c = ((mask == label).nonzero().double().mean(0) for label in (1, 2, 3))
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


@few
@given(seed=seeds)
def test_masks_keep_their_label_values_and_shape(seed: int) -> None:
    images, masks = _corners(4)
    moved, labels = augment(images, masks, derive_generator(seed))
    assert moved.shape == images.shape
    assert moved.dtype == torch.float32
    assert labels.shape == masks.shape
    assert labels.dtype == torch.int64
    assert set(labels.flatten().tolist()) == {0, 1, 2, 3}
    assert torch.isfinite(moved).all()


@few
@given(seed=seeds)
def test_nothing_is_ever_mirrored(seed: int) -> None:
    images, masks = _corners(4)
    straight = _turning(masks[0])
    _, labels = augment(images, masks, derive_generator(seed))
    assert all(_turning(mask) / straight > 0.5 for mask in labels)  # a mirror image would be negative


@few
@given(seed=seeds)
def test_the_same_generator_gives_the_same_variants(seed: int) -> None:
    images, masks = _corners(2)
    first = augment(images, masks, derive_generator(seed))
    torch.rand(3)  # the global generator moves on
    second = augment(images, masks, derive_generator(seed))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_every_slice_and_every_call_gets_a_variant_of_its_own() -> None:
    images, masks = _corners(2)
    generator = derive_generator(1)
    first, second = augment(images, masks, generator), augment(images, masks, generator)
    assert not torch.equal(first[1][0], first[1][1])
    assert not torch.equal(first[1], second[1])


def test_image_and_mask_move_together() -> None:
    images, masks = _corners(8)
    moved, labels = augment(10 * (images > 0).float(), masks, derive_generator(4))
    for image, mask in zip(moved[:, 0], labels, strict=True):
        assert image[mask > 0].mean() > image[mask == 0].mean() + 4


def test_the_input_is_left_as_it_was() -> None:
    images, masks = _corners(2)
    augment(images, masks, derive_generator(1))
    assert torch.equal(images, _corners(2)[0])
    assert torch.equal(masks, _corners(2)[1])


def test_a_constant_slice_stays_finite() -> None:
    moved, _ = augment(
        torch.full((2, 1, 16, 16), -1.5), torch.zeros(2, 16, 16, dtype=torch.long), derive_generator(1)
    )
    assert torch.isfinite(moved).all()
