"""FedEx-LoRA: average the factors, and fold what that misses into the base."""

from __future__ import annotations

from collections.abc import Mapping

from model.factors import Adapter, Factors, stack
from model.methods.fedit import average_pairs


def average_with_residual(
    uploads: Mapping[str, Adapter], shares: Mapping[str, float]
) -> tuple[dict[str, Factors], dict[str, Factors]]:
    """``B̄``, ``Ā`` as in FedIT, and ``ΔW_res = Σ_c p_c B_c A_c − B̄ Ā``, which is added to the base.

    Since ``B̄ = Σ p_c B_c``, the residual is ``Σ_c p_c B_c (A_c − Ā)``: rank ``K r`` suffices, and it is zero
    when all A are the same.

    Args:
        uploads: site → adapter, the same layers and ranks everywhere, as trained.
        shares: site → p_c = n_c / Σ n.

    Returns:
        The averaged pairs, which the sites go on training, and the residual as stacked float64 factors.

    Raises:
        RoundError: sites and shares differ, or the shares do not add up to 1.
        RankError: ranks differ.
        ShapeError: layers or sizes differ.

    Source: Singhal et al., "FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning of Large
        Language Models", ACL 2025. Departure: shares by volume where the paper writes 1/k.
    """
    pairs = average_pairs(uploads, shares)
    residual = {
        name: stack(
            (shares[site], Factors(uploads[site][name].B, uploads[site][name].A.double() - mean.A))
            for site in sorted(uploads)
        )
        for name, mean in pairs.items()
    }
    return pairs, residual
