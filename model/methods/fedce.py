"""FedCE: sites weigh by what they contribute, told from their direction and from the error without them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from model.errors import RoundError
from model.methods.checks import check_dense, check_shares
from model.methods.mean import weighted_mean

_FLOOR = 1e-3


def leave_one_out_mean(
    weights: Mapping[str, Mapping[str, Tensor]], shares: Mapping[str, float], site: str
) -> dict[str, Tensor]:
    """``Σ_{j≠c} p_j W_j / Σ_{j≠c} p_j``: the average as if site c had not taken part.

    Args:
        weights: site → layer → weights or updates, the same layers and shapes everywhere.
        shares: site → p_j.
        site: c.

    Returns:
        Layer → float64 tensor, layers sorted by name.

    Raises:
        RoundError: c is unknown, nobody else has a share, or the shares do not add up to 1.
        ShapeError: layers or shapes differ, or values are not finite.

    Source: Jiang et al., "Fair Federated Medical Image Segmentation via Client Contribution Estimation", CVPR
        2023; the authors' code (NVFlare, research/fed-ce) writes it as ``(W − p_c W_c) / (1 − p_c)``.
    """
    layers = check_dense(weights)
    check_shares(weights, shares)
    if site not in weights:
        raise RoundError(f"'{site}' sent nothing", mend="leave out a site that took part")
    rest = math.fsum(share for other, share in shares.items() if other != site)
    if not rest > 0:
        raise RoundError(f"without {site} nobody has a share", mend="average at least two sites")
    others = {other: shares[other] / rest for other in weights if other != site}
    return {name: weighted_mean({other: weights[other][name] for other in others}, others) for name in layers}


def gradient_contribution(
    updates: Mapping[str, Mapping[str, Tensor]], shares: Mapping[str, float]
) -> dict[str, float]:
    """Contribution in gradient space: ``1 − cos(u_c, mean of the others' updates)``, from 0 to 2.

    Args:
        updates: site → layer → update, over all layers one vector.
        shares: site → p_j, those of the round before.

    Returns:
        Site → contribution, sites sorted; a zero vector has no direction and counts as orthogonal, 1.

    Raises:
        RoundError: fewer than two sites with a share, or the shares do not add up to 1.
        ShapeError: layers or shapes differ, or values are not finite.

    Source: as :func:`leave_one_out_mean`.
    """
    return {
        site: 1 - _cosine(updates[site], leave_one_out_mean(updates, shares, site))
        for site in sorted(updates)
    }


def mean_over_rounds(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Smooth a contribution: its mean over all rounds so far in which the site took part.

    Args:
        history: site → contribution, one mapping per round; a site may be lacking.

    Returns:
        Site → mean, sites sorted; empty for no rounds.

    Source: as :func:`leave_one_out_mean`; the authors' code averages both contributions over all rounds.
    """
    sites = sorted(set[str]().union(*history))
    seen = {site: [contribution[site] for contribution in history if site in contribution] for site in sites}
    return {site: math.fsum(values) / len(values) for site, values in seen.items()}


def contribution_weights(
    gradient: Mapping[str, float], error: Mapping[str, float], mode: Literal["plus", "times"] = "plus"
) -> dict[str, float]:
    """Shares of the next average: both contributions normalised over the sites, then added or multiplied.

    Args:
        gradient: site → contribution in gradient space, smoothed.
        error: site → contribution in data space, smoothed: 1 − Dice on the site's validation cases of the model
            averaged without it (:func:`leave_one_out_mean`). Where there is none yet, give every site the same.
        mode: ``plus`` or ``times``.

    Returns:
        Site → share, adding up to 1, sites sorted. Where all contributions of one kind are zero, that kind
        weighs all sites alike.

    Raises:
        RoundError: no sites, the sites differ, or a contribution is negative or not finite.

    Source: as :func:`leave_one_out_mean`; the rule and its floor of 1e-3 under each normalised contribution and
        under the share are those of the authors' code, whose experiment sets ``plus``. Departure: the shares
        are normalised once more after the last floor, where the code lets them exceed 1 in sum.
    """
    if set(gradient) != set(error):
        raise RoundError(
            "the two contributions are not of the same sites", mend="estimate both for every site"
        )
    directions, errors = _floored(gradient), _floored(error)
    raw = {s: g + errors[s] if mode == "plus" else g * errors[s] for s, g in directions.items()}
    floored = _floored(raw)
    total = math.fsum(floored.values())
    return {site: share / total for site, share in floored.items()}


def _floored(contribution: Mapping[str, float]) -> dict[str, float]:
    """Divided by their sum, and at least the floor."""
    if not contribution:
        raise RoundError("no site has a contribution", mend="estimate it for every site that took part")
    for site in sorted(contribution):
        if not 0 <= contribution[site] < math.inf:
            raise RoundError(f"contribution {contribution[site]} is not a weight", site, "give finite errors")
    total = math.fsum(contribution.values())
    even = 1 / len(contribution)
    return {s: max(_FLOOR, contribution[s] / total if total > 0 else even) for s in sorted(contribution)}


def _cosine(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    def dot(x: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> float:
        return math.fsum(float((x[name].double() * y[name].double()).sum()) for name in sorted(x))

    lengths = math.sqrt(dot(a, a)) * math.sqrt(dot(b, b))
    return max(-1.0, min(1.0, dot(a, b) / lengths)) if lengths > 0 else 0.0
