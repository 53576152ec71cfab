"""Scores on cached slices: what raters and judges measure, paired slice by slice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.labels import N_CLASSES, UNKNOWN
from model.partial import annotated_in, is_partial


def segment(net: nn.Module, images: Tensor, batch: int = 16) -> Tensor:
    """Class probabilities ``(N, N_CLASSES, Y, X)`` of slices ``(N, 1, Y, X)``, without gradients."""
    if not len(images):
        return images.new_zeros((0, N_CLASSES, *images.shape[2:]))
    net.eval()
    with torch.inference_mode():
        return torch.cat([net(part).softmax(1) for part in torch.split(images, batch)])


def structure_dice(predicted: Tensor, true: Tensor) -> Tensor:
    """Dice of every slice and structure.

    Args:
        predicted: labels ``(N, Y, X)``.
        true: labels ``(N, Y, X)``, which may be partial (:mod:`model.partial`); unknown voxels do not count.

    Returns:
        ``(N, 3)`` float64, in the order of the labels; NaN where a structure stands in neither mask, or was not
        annotated.
    """
    partial = is_partial(true)
    if partial:
        predicted = torch.where(true == UNKNOWN, 0, predicted)
    rows = []
    for label in range(1, N_CLASSES):
        p, t = (predicted == label).flatten(1), (true == label).flatten(1)
        size = (p.sum(1) + t.sum(1)).double()
        rows.append(2 * (p & t).sum(1) / size)  # 0 / 0 is NaN: undefined, not 0
    dice = torch.stack(rows, dim=1)
    return dice.masked_fill(~annotated_in(true), torch.nan) if partial else dice


def slice_dice(predicted: Tensor, true: Tensor) -> Tensor:
    """Mean over the defined structures of :func:`structure_dice`, ``(N,)``; NaN for a slice with none."""
    return structure_dice(predicted, true).nanmean(1)


@dataclass(frozen=True)
class Panel:
    """A rater's fixed validation slices.

    Attributes:
        images: ``(n, 1, Y, X)`` float32.
        masks: ``(n, Y, X)`` int64.
        case: ``(n,)`` int64, the volume each slice comes from; slices of one volume are no independent evidence.
    """

    images: Tensor
    masks: Tensor
    case: Tensor

    def scores(self, net: nn.Module) -> Tensor:
        """Dice per slice and structure, ``(n, 3)``."""
        return structure_dice(segment(net, self.images).argmax(1), self.masks)


def paired_gain(before: Tensor, after: Tensor) -> tuple[float, float, int]:
    """Mean difference of paired slice scores and its standard error.

    Args:
        before: ``(N,)`` Dice per slice, NaN where undefined.
        after: ``(N,)``, same slices.

    Returns:
        Mean gain, standard error (NaN below two slices) and the number of slices defined on either side; a slice
        that is undefined on one side only counts as 1 there, since the empty answer was right.
    """
    defined = ~(before.isnan() & after.isnan())
    gain = after.nan_to_num(1.0)[defined] - before.nan_to_num(1.0)[defined]
    n = int(gain.numel())
    if n == 0:
        return math.nan, math.nan, 0
    return float(gain.mean()), float(gain.std() / math.sqrt(n)) if n > 1 else math.nan, n


def choose_slices(phase: Tensor, patient: Tensor, z: Tensor, count: int) -> Tensor:
    """A fixed set of slices, spread over patients, phases and levels.

    Args:
        phase: ``(N,)`` integer code of ED or ES.
        patient: ``(N,)`` integer code.
        z: ``(N,)`` slice index within its volume.
        count: wanted slices.

    Returns:
        Sorted indices ``(min(count, N),)``: the slices are ordered by patient, phase and level, and every
        ``N / count``-th is taken, so that each volume gives its share from base to apex.
    """
    n = phase.numel()
    order = sorted(range(n), key=lambda i: (int(patient[i]), int(phase[i]), int(z[i])))
    k = min(count, n)
    return torch.tensor(sorted(order[(2 * i + 1) * n // (2 * k)] for i in range(k)), dtype=torch.long)
