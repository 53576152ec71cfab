"""FedIT: FedAvg of LoRA's two factors, each on its own."""

from __future__ import annotations

from collections.abc import Mapping

from model.factors import Adapter, Factors
from model.methods.checks import check_equal_ranks, check_shares
from model.methods.mean import weighted_mean


def average_pairs(uploads: Mapping[str, Adapter], shares: Mapping[str, float]) -> dict[str, Factors]:
    """``B̄ = Σ_c p_c B_c`` and ``Ā = Σ_c p_c A_c``; the product ``B̄ Ā`` is not ``Σ_c p_c B_c A_c``.

    Give the factors as they were trained, from a common start: after a balancing SVD every site's columns have
    an order and signs of their own, and their average means nothing.

    Args:
        uploads: site → adapter, the same layers and ranks everywhere.
        shares: site → p_c = n_c / Σ n.

    Returns:
        float64 factors of the common rank, layers sorted by name.

    Raises:
        RoundError: sites and shares differ, or the shares do not add up to 1.
        RankError: ranks differ.
        ShapeError: layers or sizes differ.

    Source: Zhang et al., "Towards Building the Federated GPT: Federated Instruction Tuning", ICASSP 2024; the
        same rule in FedPETuning (Zhang et al., Findings of ACL 2023). Departure: LoRA's scaling alpha / r is
        already inside B; it is the same number at every site, so averaging B averages the unscaled factor too.
    """
    check_shares(uploads, shares)
    return {
        name: Factors(
            weighted_mean({site: adapter[name].B for site, adapter in uploads.items()}, shares),
            weighted_mean({site: adapter[name].A for site, adapter in uploads.items()}, shares),
        )
        for name in check_equal_ranks(uploads)
    }
