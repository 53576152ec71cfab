"""FedSA-LoRA: share A, which holds general knowledge; B stays at its site."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from model.factors import Adapter
from model.methods.checks import check_equal_ranks, check_shares
from model.methods.mean import weighted_mean


def share_down_projection(uploads: Mapping[str, Adapter], shares: Mapping[str, float]) -> dict[str, Tensor]:
    """``Ā = Σ_c p_c A_c``; site c goes on with ``B_c Ā``.

    Args:
        uploads: site → adapter, the same layers and ranks everywhere, as trained; only A is read.
        shares: site → p_c.

    Returns:
        Layer → float64 ``Ā (r, in)``, layers sorted by name.

    Raises:
        RoundError: sites and shares differ, or the shares do not add up to 1.
        RankError: ranks differ.
        ShapeError: layers or sizes differ.

    Source: Guo et al., "Selective Aggregation for Low-Rank Adaptation in Federated Learning", ICLR 2025 (arXiv
        2024).
    """
    check_shares(uploads, shares)
    return {
        name: weighted_mean({site: adapter[name].A for site, adapter in uploads.items()}, shares)
        for name in check_equal_ranks(uploads)
    }
