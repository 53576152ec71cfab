"""The weighted mean over sites, summed in the order of their names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def weighted_mean(parts: Mapping[str, Tensor], shares: Mapping[str, float]) -> Tensor:
    """``Σ_c p_c X_c`` in float64; the order in which the sites are given does not change one bit.

    Args:
        parts: site → tensor, all of one shape, at least one.
        shares: site → p_c.

    Returns:
        float64 tensor of the same shape.
    """
    return torch.stack([shares[site] * parts[site].double() for site in sorted(parts)]).sum(0)
