"""Noise on a whole update, the Gaussian mechanism: its length is clipped, then every trained weight gets noise."""

from __future__ import annotations

import torch
from torch import Generator

from model.factors import Adapter, Factors, factorise


def privatise(update: Adapter, clip: float, noise: float, generator: Generator) -> dict[str, Factors]:
    """``min(1, clip / ‖ΔW‖) · ΔW + N(0, (noise · clip)²)``, the dense deltas of all layers taken as one vector.

    With another's update in place of this one, or none, the clipped vector moves by at most ``2 · clip``, or ``clip``.

    Args:
        update: factors of every trained layer; which layers these are must not depend on data.
        clip: L2 norm that is kept.
        noise: standard deviation in units of ``clip``.
        generator: secret; who knows it takes the noise off again.

    Returns:
        Balanced float64 factors of full rank; whatever is made of them later says no more about the data.

    Source: Dwork and Roth, The Algorithmic Foundations of Differential Privacy, 2014, appendix A; clipping as in
        McMahan et al., arXiv 1710.06963.
    """
    deltas = {name: update[name].B.double() @ update[name].A.double() for name in sorted(update)}
    length = sum(float(delta.square().sum()) for delta in deltas.values()) ** 0.5
    scale = min(1.0, clip / length) if length > 0 else 1.0
    noised = {}
    for name, delta in deltas.items():
        drawn = torch.randn(delta.shape, generator=generator, dtype=torch.float64)
        noised[name] = factorise(scale * delta + noise * clip * drawn, min(delta.shape))[0]
    return noised
