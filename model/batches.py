"""Batches of slices: every epoch its own order, every batch augmented."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from model.augment import augment
from model.seeds import derive_generator
from model.training import Batch


def steps_per_epoch(n: int, batch: int) -> int:
    """Batches that show each of ``n`` slices once; the last one may be smaller."""
    return -(-n // batch)


def augmented_batches(
    images: Tensor, masks: Tensor, batch: int, seed: int
) -> Callable[[int, Generator], Batch]:
    """Set up the batches of a training: slices from the epoch's order, augmentation from the generator.

    Args:
        images: ``(N, 1, Y, X)`` float32.
        masks: ``(N, Y, X)`` int64.
        batch: slices per step.
        seed: of the order; the order of an epoch depends on nothing else, so training can be resumed anywhere.

    Returns:
        A function from the step, counted from 0, and a generator to images ``(n, 1, Y, X)`` and masks
        ``(n, Y, X)``; n is ``batch``, or less at the end of an epoch.
    """
    n = images.shape[0]
    per_epoch = steps_per_epoch(n, batch)

    def draw(step: int, generator: Generator) -> Batch:
        epoch, k = divmod(step, per_epoch)
        order = torch.randperm(n, generator=derive_generator(seed, "epoch", epoch))
        chosen = order[k * batch : (k + 1) * batch]
        return augment(images[chosen], masks[chosen], generator)

    return draw
