"""Augmentation that suits short-axis cine MRI: the heart turns, shifts, grows and changes contrast.

No mirroring: it would put the right ventricle on the wrong side.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from model.partial import PARTIAL


def augment(images: Tensor, masks: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """One random variant of every slice.

    Args:
        images: ``(N, 1, Y, X)`` float32, z-scored.
        masks: ``(N, Y, X)`` int64, which may be partial (:mod:`model.partial`).
        generator: the only source of randomness.

    Returns:
        Images and masks of the same shapes; masks keep their label values (nearest neighbour).
    """
    n = images.shape[0]
    turn = _uniform(n, -math.pi / 6, math.pi / 6, generator)
    zoom = torch.exp(_uniform(n, math.log(0.8), math.log(1.25), generator))
    shift = torch.stack([_uniform(n, -0.1, 0.1, generator) for _ in range(2)], dim=1)
    grid = _affine_grid(turn, zoom, shift, images.shape)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    border = masks.flatten(1).amax(1)  # beyond the border lies background, or what is as unknown as the slice
    border = torch.where(border >= PARTIAL, border, 0)[:, None, None]
    shifted = (masks - border)[:, None].float()
    labels = F.grid_sample(shifted, grid, mode="nearest", align_corners=False)
    return _recolour(moved, generator), labels[:, 0].round().long() + border


def _affine_grid(turn: Tensor, zoom: Tensor, shift: Tensor, shape: torch.Size) -> Tensor:
    cos, sin = torch.cos(turn) / zoom, torch.sin(turn) / zoom
    rows = [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)]
    return F.affine_grid(torch.stack(rows, 1), list(shape), align_corners=False)


def _recolour(images: Tensor, generator: Generator) -> Tensor:
    """Gamma, contrast, brightness and noise, each its own per slice."""
    n = images.shape[0]
    low = images.amin(dim=(2, 3), keepdim=True)
    span = (images.amax(dim=(2, 3), keepdim=True) - low).clamp_min(1e-6)
    gamma = torch.exp(_uniform(n, -0.35, 0.35, generator)).view(n, 1, 1, 1)
    images = ((images - low) / span).pow(gamma) * span + low
    contrast = _uniform(n, 0.8, 1.25, generator).view(n, 1, 1, 1)
    brightness = _uniform(n, -0.2, 0.2, generator).view(n, 1, 1, 1)
    level = _uniform(n, 0.0, 0.15, generator).view(n, 1, 1, 1)
    noise = torch.randn(images.shape, generator=generator) * level
    return images * contrast + brightness + noise


def _uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low
