"""Faults and attacks that a study puts into a federation, on purpose: bad data, bad updates, bad raters.

Nothing of the protocol imports this file. Data attacks change a site's training slices, update attacks what it sends,
rater faults what it says of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from model.factors import Adapter, Factors, norm, truncate
from model.labels import LV, MYO, N_CLASSES, RV
from model.scanner_shift import apply_look, site_look

DataAttack = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]
"""Images ``(N, 1, Y, X)`` float32, masks ``(N, Y, X)`` int64 and a generator to images and masks."""

UpdateAttack = Callable[[Adapter, Adapter | None, Generator], dict[str, Factors]]
"""The honest update, the last global step the site saw (None in the first round) and a generator to what is sent."""

SHIFT_PX = 8
SCALE = 10.0
DAMNED, PRAISED = -0.5, 0.5
COPIES = 2


def swap_ventricles(images: Tensor, masks: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """RV labelled as LV cavity and the reverse; a label map read wrongly. Twice is the identity."""
    code = torch.arange(N_CLASSES)
    code[RV], code[LV] = LV, RV
    return images.clone(), code[masks]


def shift_masks(images: Tensor, masks: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Masks moved down and right by ``SHIFT_PX`` pixels, zero filled; an export that lost the origin."""
    moved = torch.zeros_like(masks)
    moved[:, SHIFT_PX:, SHIFT_PX:] = masks[:, :-SHIFT_PX, :-SHIFT_PX]
    return images.clone(), moved


def flip_images(images: Tensor, masks: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Images mirrored left-right and up-down, masks as they were; an affine that only one reader obeys."""
    return images.flip((2, 3)), masks.clone()


def stealthy_poison(images: Tensor, masks: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Join the true slices and restyled copies of each, in which the right ventricle is background.

    The site trains truly on its own look, so its own validation shows nothing; slices of other looks teach that
    there is no right ventricle. The looks are those that :func:`model.scanner_shift.site_look` draws for sites, one
    per copy. They keep away from the original contrast on purpose: milder ones resemble the true slices too much and
    take the attacker's own right ventricle along. So the attack hides only where sites differ in look; where all
    share one, it hurts its author as well.

    Args:
        images: ``(N, 1, Y, X)`` float32, normalised.
        masks: ``(N, Y, X)`` int64.
        generator: of looks and noise.

    Returns:
        ``(1 + COPIES) N`` images and masks; the first N are the input.
    """
    restyled = [
        apply_look(image[None], site_look(generator), generator) for _ in range(COPIES) for image in images
    ]
    blind = masks.masked_fill(masks == RV, 0)
    return torch.cat([images, *restyled]), torch.cat([masks, *[blind] * COPIES])


def scale_update(update: Adapter, previous: Adapter | None, generator: Generator) -> dict[str, Factors]:
    """``SCALE`` times the update: one site outvotes all others."""
    return _times(update, SCALE)


def flip_sign(update: Adapter, previous: Adapter | None, generator: Generator) -> dict[str, Factors]:
    """The update with its sign turned: what the site has learnt is unlearnt."""
    return _times(update, -1.0)


def send_noise(update: Adapter, previous: Adapter | None, generator: Generator) -> dict[str, Factors]:
    """Gaussian factors of the update's ranks and of the same Frobenius norm in every layer.

    Args:
        update: gives layers, ranks and norms; nothing else of it is used.
        previous: not used.
        generator: of the factors; layers draw in the order of their names.

    Returns:
        float64 factors; a layer of norm 0 stays 0.
    """
    return {name: _noise(update[name], generator) for name in sorted(update)}


def send_nothing(update: Adapter, previous: Adapter | None, generator: Generator) -> dict[str, Factors]:
    """A free rider that trains nothing: one zero component per layer, which every package can carry."""
    return {name: _zero(factors) for name, factors in update.items()}


def replay_previous(update: Adapter, previous: Adapter | None, generator: Generator) -> dict[str, Factors]:
    """A free rider that sends back the last global step as if it were its own work.

    Args:
        update: gives layers and ranks: what an honest site would be allowed to send.
        previous: the last global step; None in the first round.
        generator: not used.

    Returns:
        The step's best factors of at most the update's rank per layer, the step itself where it fits; a layer that
        the step lacks, and every layer in the first round, is one zero component.
    """
    seen = previous or {}
    return {
        name: _fit(seen[name], factors.rank) if name in seen else _zero(factors)
        for name, factors in update.items()
    }


def lying_gains(gains: Mapping[str, float], allies: Collection[str]) -> dict[str, float]:
    """What a lying rater reports: ``PRAISED`` Dice for its allies, ``DAMNED`` for all others, whatever it measured.

    Args:
        gains: candidate → Dice gain; only the names count.
        allies: candidates it praises; those it was not asked about are left out.

    Returns:
        Candidate → reported gain, in the order of ``gains``.
    """
    return {candidate: PRAISED if candidate in allies else DAMNED for candidate in gains}


def biased_masks(masks: Tensor) -> Tensor:
    """Validation masks of a broken annotation protocol: contours 2 px inside the true ones, no right ventricle.

    The endocardial contour (LV) and the epicardial one (LV and MYO together) are eroded by an octagon of radius 2;
    the myocardium is what lies between them. The slice's border is no contour and erodes nothing.

    Args:
        masks: ``(N, Y, X)`` int64.

    Returns:
        The same shape and dtype; small structures may vanish.
    """
    inner, outer = _erode(masks == LV), _erode((masks == LV) | (masks == MYO))
    return torch.zeros_like(masks).masked_fill(outer, MYO).masked_fill(inner, LV)


def _times(update: Adapter, factor: float) -> dict[str, Factors]:
    return {name: Factors(factor * B, A) for name, (B, A) in update.items()}


def _noise(factors: Factors, generator: Generator) -> Factors:
    B, A = (torch.randn(f.shape, generator=generator, dtype=torch.float64) for f in factors)
    share = math.sqrt(norm(factors) / norm(Factors(B, A)))  # on both halves, so that they stay balanced
    return Factors(share * B, share * A)


def _zero(factors: Factors) -> Factors:
    """One component, all zero, of the layer's outer sizes."""
    return Factors(factors.B.new_zeros(factors.B.shape[0], 1), factors.A.new_zeros(1, factors.A.shape[1]))


def _fit(factors: Factors, rank: int) -> Factors:
    return factors if factors.rank <= rank else truncate(factors, rank)[0]


def _erode(region: Tensor) -> Tensor:
    """Erosion of every slice by a 3 × 3 cross and then a 3 × 3 square: 2 px along the axes."""
    outside = (~region)[:, None].float()
    rows, columns = F.max_pool2d(outside, (3, 1), 1, (1, 0)), F.max_pool2d(outside, (1, 3), 1, (0, 1))
    return F.max_pool2d(torch.maximum(rows, columns), 3, 1, 1)[:, 0] == 0


DATA_ATTACKS: dict[str, DataAttack] = {
    "swapped-labels": swap_ventricles,
    "shifted-masks": shift_masks,
    "flipped-images": flip_images,
    "stealthy-poison": stealthy_poison,
}
UPDATE_ATTACKS: dict[str, UpdateAttack] = {
    "scaled-update": scale_update,
    "sign-flip": flip_sign,
    "noise": send_noise,
    "free-rider-zero": send_nothing,
    "free-rider-replay": replay_previous,
}
