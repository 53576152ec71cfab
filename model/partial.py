"""Partial labels: what a voxel of a mask may be, so that a structure nobody annotated is never taken for background.

A voxel that is known holds its label, 0 to 3. One that is not holds a set of labels as bits, ``128 + Σ 2^label``: it is
background or one of these. 255 has all bits: it may be anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.labels import N_CLASSES, STRUCTURES, UNKNOWN

PARTIAL = 128
_SMOOTH = 1e-5
"""As in MONAI's Dice loss."""


def encode(mask: NDArray[Any], annotated: frozenset[int]) -> NDArray[np.int16]:
    """Turn a file's mask into what each voxel may be.

    Args:
        mask: labels, 255 where nobody annotated, 0 for what is none of the annotated structures.
        annotated: the structures that the mask speaks of.

    Returns:
        The same shape; the mask itself where everything was annotated.
    """
    missing = sum(1 << label for label in STRUCTURES.values() if label not in annotated)
    codes: NDArray[np.int16] = np.asarray(mask).astype(np.int16)
    return np.where(codes == 0, np.int16(PARTIAL + missing), codes) if missing else codes


def outside(codes: NDArray[Any]) -> int:
    """What lies beyond a mask's border: background, or as unknown as its most unknown voxel."""
    highest = int(codes.max(initial=0))
    return highest if highest >= PARTIAL else 0


def is_partial(masks: Tensor) -> bool:
    """Whether any voxel is not known for certain."""
    return bool((masks >= PARTIAL).any())


def possible(masks: Tensor) -> Tensor:
    """Which classes every voxel may be, ``(N, C, Y, X)`` bool, of masks ``(N, Y, X)``."""
    labels, codes = torch.arange(N_CLASSES).view(1, -1, 1, 1), masks[:, None]
    return torch.where(codes >= PARTIAL, (labels == 0) | ((codes >> labels) & 1 == 1), codes == labels)


def annotated_in(masks: Tensor) -> Tensor:
    """The structures that were annotated in each slice.

    Args:
        masks: ``(N, Y, X)``.

    Returns:
        ``(N, 3)`` bool, in the order of the labels; none in a slice of 255 alone.
    """
    unsure = (masks >= PARTIAL) & (masks != UNKNOWN)
    missing = (possible(masks)[:, 1:] & unsure[:, None]).flatten(2).any(2)
    return ~missing & (masks != UNKNOWN).flatten(1).any(1)[:, None]


def partial_loss(logits: Tensor, masks: Tensor, weights: Tensor | None = None) -> Tensor:
    """Dice + cross-entropy over what was annotated.

    Cross-entropy is that of the set a voxel belongs to, ``−log Σ_{c possible} p_c``: among the classes that the mask
    cannot tell apart nothing is taught. A structure's Dice counts the slices where it was annotated; one that is
    annotated nowhere in the batch is left out of the mean.

    Args:
        logits: ``(N, C, Y, X)``.
        masks: ``(N, Y, X)`` int64.
        weights: ``(C,)`` of the classes; a voxel that may be background has the background's. None for ones.

    Returns:
        A scalar; 0 for a batch without any annotation. With everything annotated it is MONAI's ``DiceCELoss`` without
        background, over the batch.

    Source: marginal loss, Shi et al., Medical Image Analysis 2021, section 3.
    """
    weights = torch.ones(N_CLASSES) if weights is None else weights
    may, known = possible(masks), masks != UNKNOWN
    log_p = logits.log_softmax(1)
    marginal = log_p.masked_fill(~may, -torch.inf).logsumexp(1)
    sure = torch.where(masks < PARTIAL, masks, 0)
    weight = torch.where(known, weights[sure], 0.0)
    entropy = -(weight * marginal).sum() / weight.sum().clamp_min(_SMOOTH)
    counted = annotated_in(masks)[:, :, None, None] & known[:, None]
    p, t = log_p.exp()[:, 1:] * counted, (may[:, 1:] & counted).float()
    shared, size = (p * t).sum((0, 2, 3)), p.sum((0, 2, 3)) + t.sum((0, 2, 3))
    dice = (1 - (2 * shared + _SMOOTH) / (size + _SMOOTH)) * weights[1:]
    here = counted.flatten(2).any(2).any(0)
    return entropy + (dice * here).sum() / here.sum().clamp_min(1)
