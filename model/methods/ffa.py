"""FFA-LoRA: A stays at its common random start, only B is trained and averaged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from model.errors import ShapeError
from model.factors import Adapter, Factors
from model.methods.checks import check_equal_ranks, check_shares
from model.methods.mean import weighted_mean


def average_down(
    uploads: Mapping[str, Adapter], shares: Mapping[str, float], A: Mapping[str, Tensor]
) -> dict[str, Factors]:
    """``B̄ = Σ_c p_c B_c`` beside the frozen A: ``B̄ A = Σ_c p_c B_c A`` exactly.

    Args:
        uploads: site → adapter; every A equals the frozen one to float32 rounding.
        shares: site → p_c = n_c / Σ n.
        A: layer → the frozen ``A (r, in)``; layers beyond those of the uploads are passed over.

    Returns:
        float64 factors of the common rank with the frozen A, layers sorted by name.

    Raises:
        RoundError: sites and shares differ, or the shares do not add up to 1.
        RankError: ranks differ.
        ShapeError: layers or sizes differ, or a site's A is not the frozen one.

    Source: Sun et al., "Improving LoRA in Privacy-preserving Federated Learning", ICLR 2024. The scaling
        alpha / r is already inside B, the same number at every site.
    """
    check_shares(uploads, shares)
    layers = check_equal_ranks(uploads)
    for name in layers:
        _check_frozen(uploads, A.get(name), name)
    return {
        name: Factors(
            weighted_mean({site: adapter[name].B for site, adapter in uploads.items()}, shares),
            A[name].double(),
        )
        for name in layers
    }


def _check_frozen(uploads: Mapping[str, Adapter], frozen: Tensor | None, name: str) -> None:
    if frozen is None:
        raise ShapeError("there is no frozen A for this layer", name, "freeze A for every layer that is sent")
    for site in sorted(uploads):
        sent = uploads[site][name].A
        if sent.shape != frozen.shape or not torch.allclose(sent.double(), frozen.double()):
            raise ShapeError(f"{site} sent an A that is not the frozen one", name, "train B only")
