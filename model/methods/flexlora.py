"""FlexLoRA: average the products, give every site the best factors of its own rank."""

from __future__ import annotations

from collections.abc import Mapping

from model.factors import Adapter, Factors, sum_adapters, truncate_adapter
from model.methods.checks import check_factors, check_shares


def average_products(uploads: Mapping[str, Adapter], shares: Mapping[str, float]) -> dict[str, Factors]:
    """``ΔW = Σ_c p_c B_c A_c`` as stacked factors, exact to rounding.

    Args:
        uploads: site → adapter of any rank; a lacking layer counts as zero.
        shares: site → p_c = n_c / Σ n.

    Returns:
        float64 factors of rank ``Σ_c r_c``, layers sorted by name.

    Raises:
        RoundError: sites and shares differ, or the shares do not add up to 1.
        RankError: factors do not multiply.
        ShapeError: sizes differ.

    Source: Bai et al., "Federated Fine-tuning of Large Language Models under Heterogeneous Tasks and Client
        Resources", NeurIPS 2024. Departure: the full-size product is kept as factors and never formed.
    """
    check_shares(uploads, shares)
    check_factors(uploads)
    return sum_adapters((shares[site], uploads[site]) for site in sorted(uploads))


def distribute(average: Adapter, rank: int) -> dict[str, Factors]:
    """Best factors of rank ``rank`` by SVD, what a site of this rank receives.

    Args:
        average: of :func:`average_products`.
        rank: of the site, at least 1.

    Returns:
        float64 factors of at most ``rank`` per layer.

    Raises:
        RankError: ``rank < 1``.

    Source: as :func:`average_products`. Departure: the singular values are shared evenly between both factors;
        the product is the same for any split, the site's next steps are not.
    """
    return truncate_adapter(average, rank)[0]
