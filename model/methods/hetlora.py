"""HetLoRA: factors of unequal ranks, padded with zeros and weighed by the norm of their product."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import pad

from model.errors import RankError, RoundError
from model.factors import Adapter, Factors, adapter_norm
from model.methods.checks import check_factors, common_layers
from model.methods.mean import weighted_mean


def pad_and_weigh(uploads: Mapping[str, Adapter], rank_max: int) -> dict[str, Factors]:
    """``B̄ = Σ_k p_k [B_k 0]``, ``Ā = Σ_k p_k [A_k; 0]`` with ``p_k = ‖B_k A_k‖ / Σ_j ‖B_j A_j‖`` (Frobenius).

    The volume of data plays no part. Give the factors as they were trained (see
    :func:`model.methods.fedit.average_pairs`).

    Args:
        uploads: site → adapter, the same layers everywhere, ranks at most ``rank_max``.
        rank_max: rank of the result.

    Returns:
        float64 factors of rank ``rank_max``, layers sorted by name.

    Raises:
        RoundError: nobody sent an update, or all are zero.
        RankError: a rank is above ``rank_max``, or factors do not multiply.
        ShapeError: layers or sizes differ.

    Source: Cho et al., "Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation Models", EMNLP
        2024, sparsity-weighted aggregation (figure 2). The paper speaks of one reconstructed update a client and
        not of its layers: here the norm is taken over the whole adapter, one weight per site. Departure: rank
        self-pruning, the regulariser during training that lets a site lower its rank, is left out.
    """
    if not uploads:
        raise RoundError("no site sent an update", mend="see why the sites' training failed; run it again")
    check_factors(uploads)
    layers = common_layers(uploads)
    padded = {site: {name: _pad(uploads[site][name], rank_max, name) for name in layers} for site in uploads}
    shares = _sparsity_shares(uploads)
    return {name: Factors(*(_mean(padded, shares, name, i) for i in range(2))) for name in layers}


def cut(adapter: Adapter, rank: int) -> dict[str, Factors]:
    """What a site of this rank receives: the first columns of B and rows of A, no SVD.

    Args:
        adapter: the aggregated factors.
        rank: of the site; layers of a smaller rank are passed whole.

    Returns:
        Copies of rank at most ``rank``, layers sorted by name.

    Raises:
        RankError: ``rank < 1``.

    Source: as :func:`pad_and_weigh`, distribution by truncation.
    """
    if rank < 1:
        raise RankError(f"rank {rank} is below 1", mend="raise the site's rank")
    return {name: Factors(f.B[:, :rank].clone(), f.A[:rank].clone()) for name, f in sorted(adapter.items())}


def _pad(factors: Factors, rank_max: int, name: str) -> Factors:
    lacking = rank_max - factors.rank
    if lacking < 0:
        raise RankError(
            f"rank {factors.rank} is above {rank_max}", name, "raise rank_max to the largest rank sent"
        )
    return Factors(pad(factors.B, (0, lacking)), pad(factors.A, (0, 0, 0, lacking)))


def _sparsity_shares(uploads: Mapping[str, Adapter]) -> dict[str, float]:
    norms = {site: adapter_norm(uploads[site]) for site in sorted(uploads)}
    total = sum(norms.values())
    if not total > 0:
        raise RoundError("every update is zero", mend="see the sites' training; nothing can be weighed")
    return {site: norm / total for site, norm in norms.items()}


def _mean(padded: Mapping[str, Adapter], shares: Mapping[str, float], name: str, i: int) -> Tensor:
    return weighted_mean({site: adapter[name][i] for site, adapter in padded.items()}, shares)
