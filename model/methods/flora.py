"""FLoRA: stack the sites' factors, fold the stack into the base, start afresh."""

from __future__ import annotations

from collections.abc import Mapping

from model.factors import Adapter, Factors, sum_adapters
from model.methods.checks import check_factors, check_shares


def stack_adapters(uploads: Mapping[str, Adapter], shares: Mapping[str, float]) -> dict[str, Factors]:
    """``B = [p_1 B_1 … p_K B_K]``, ``A = [A_1; …; A_K]``, so that ``B A = Σ_k p_k B_k A_k`` without noise.

    The sites download the stack, fold it into their base (:func:`model.factors.fold`) and begin the next round
    with new factors.

    Args:
        uploads: site → adapter of any rank; a lacking layer counts as zero.
        shares: site → p_k = n_k / Σ n.

    Returns:
        float64 factors of rank ``Σ_k r_k``, layers sorted by name, the sites side by side in the order of their
        names.

    Raises:
        RoundError: sites and shares differ, or the shares do not add up to 1.
        RankError: factors do not multiply.
        ShapeError: sizes differ.

    Source: Wang et al., "FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous Low-Rank
        Adaptations", NeurIPS 2024. Departure: the share scales B instead of A; the product is the same.
    """
    check_shares(uploads, shares)
    check_factors(uploads)
    return sum_adapters((shares[site], uploads[site]) for site in sorted(uploads))
