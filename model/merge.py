"""The merge: one step from many updates.

``Δ_t = Σ_c w_c v_c B_c A_c / D`` where v_c is the volume weight and D is ``Σ v_c`` (the paper) or ``Σ w_c v_c``.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Literal

from model.errors import RoundError
from model.factors import Adapter, Factors, adapter_norm, sum_adapters, truncate_adapter

Form = Literal["paper", "renormalised"]
Volume = Literal["linear", "sqrt", "uniform"]


def volume_weights(slices: Mapping[str, int], volume: Volume) -> dict[str, float]:
    """v_c = n_c, √n_c or 1, by number of training slices."""
    power = {"linear": 1.0, "sqrt": 0.5, "uniform": 0.0}[volume]
    return {site: float(n**power) for site, n in slices.items()}


def merge_shares(weights: Mapping[str, float], volumes: Mapping[str, float], form: Form) -> dict[str, float]:
    """Coefficient of every update in the step.

    Args:
        weights: w_c from rating, in [0, 1].
        volumes: v_c, positive, same sites.
        form: ``paper`` divides by ``Σ v_c``, so a penalty also shortens the step; ``renormalised`` divides by
            ``Σ w_c v_c``, so the shares add up to 1.

    Returns:
        Site → share: ``w_c v_c`` over that sum.

    Raises:
        RoundError: no updates, or every weight is zero.

    Source: Rate-My-LoRA, merge equation as quoted in its summary; ``renormalised`` is ours.
    """
    denominator = sum(v * (weights[c] if form == "renormalised" else 1.0) for c, v in volumes.items())
    if not denominator > 0:
        raise RoundError("no update has any weight", mend="see the ratings; the round cannot be merged")
    return {c: weights[c] * v / denominator for c, v in volumes.items()}


def clip_factors(norms: Mapping[str, float], clip: float) -> dict[str, float]:
    """Shrinking factor per update so that none is longer than ``clip`` × the median norm; 1 for those within."""
    limit = clip * median(norms.values())
    return {c: 1.0 if n <= limit or n == 0 else limit / n for c, n in norms.items()}


def merge_step(updates: Mapping[str, Adapter], coefficients: Mapping[str, float]) -> dict[str, Factors]:
    """``Σ_c k_c Δ_c`` as stacked factors, exact to rounding; the order of the sites does not matter.

    Args:
        updates: site → adapter.
        coefficients: site → share × clipping.

    Returns:
        float64 factors, recompressed to the true rank at most (no energy is cut).
    """
    stacked = sum_adapters((coefficients[c], updates[c]) for c in sorted(updates))
    full = max((f.rank for f in stacked.values()), default=1)
    return truncate_adapter(stacked, full)[0]


def update_norms(updates: Mapping[str, Adapter]) -> dict[str, float]:
    """Frobenius norm of every update."""
    return {site: adapter_norm(update) for site, update in updates.items()}
