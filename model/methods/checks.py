"""What every method checks before it computes: the sites, their shares, their layers and sizes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from torch import Tensor

from model.errors import RankError, RoundError, ShapeError
from model.factors import Adapter

_TOLERANCE = 1e-6


def check_shares(sites: Collection[str], shares: Mapping[str, float]) -> None:
    """Refuse shares that are not a distribution over exactly these sites.

    Args:
        sites: who sent something.
        shares: site → p_c, not negative, adding up to 1 within 1e-6.

    Raises:
        RoundError: nobody sent anything, sites and shares differ, or the shares are no distribution.
    """
    if not sites:
        raise RoundError("no site sent an update", mend="see why the sites' training failed; run it again")
    strangers = sorted(set(sites) ^ set(shares))
    if strangers:
        raise RoundError(
            f"sites and shares differ by {', '.join(strangers)}", mend="give one share to every upload"
        )
    for site in sorted(shares):
        if not 0 <= shares[site] < math.inf:
            raise RoundError(f"share {shares[site]} is not a weight", site, "give shares n_c / Σ n")
    total = math.fsum(shares.values())
    if abs(total - 1) > _TOLERANCE:
        raise RoundError(f"shares add up to {total:.6g}, not to 1", mend="divide each share by their sum")


def common_layers(uploads: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Names of the layers, sorted.

    Args:
        uploads: site → anything by layer; at least one site.

    Returns:
        The layers that all sites hold.

    Raises:
        ShapeError: a site lacks a layer that another one holds.
    """
    every = set[str]().union(*uploads.values())
    for site in sorted(uploads):
        lacking = sorted(every - set(uploads[site]))
        if lacking:
            raise ShapeError(
                f"{site} sent no update of this layer, others did",
                lacking[0],
                "send the same layers everywhere",
            )
    return sorted(every)


def check_factors(uploads: Mapping[str, Adapter]) -> None:
    """Refuse factors that do not multiply or whose outer sizes differ between sites; ranks may differ.

    Args:
        uploads: site → adapter; a layer may be lacking.

    Raises:
        RankError: B's columns are not as many as A's rows.
        ShapeError: the sizes ``(out, in)`` of a layer differ between sites.
    """
    sizes: dict[str, tuple[int, int]] = {}
    for site in sorted(uploads):
        for name, (B, A) in uploads[site].items():
            if B.shape[1] != A.shape[0]:
                raise RankError(
                    f"{site} sent B with {B.shape[1]} columns and A with {A.shape[0]} rows",
                    name,
                    "send both factors of one layer",
                )
            size = (B.shape[0], A.shape[1])
            if sizes.setdefault(name, size) != size:
                raise ShapeError(
                    f"{site} sent an update {size}, others {sizes[name]}", name, "train on the same base"
                )


def check_equal_ranks(uploads: Mapping[str, Adapter]) -> list[str]:
    """Refuse uploads whose factors cannot be averaged entry by entry.

    Args:
        uploads: site → adapter.

    Returns:
        The common layers, sorted.

    Raises:
        RankError: factors do not multiply, or a layer's rank differs between sites.
        ShapeError: layers or outer sizes differ between sites.
    """
    check_factors(uploads)
    layers = common_layers(uploads)
    for name in layers:
        ranks = sorted({adapter[name].rank for adapter in uploads.values()})
        if len(ranks) > 1:
            raise RankError(
                f"ranks {ranks} cannot be averaged entry by entry", name, "give every site the same rank"
            )
    return layers


def check_dense(updates: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    """Refuse dense updates that cannot be compared entry by entry.

    Args:
        updates: site → layer → tensor.

    Returns:
        The common layers, sorted.

    Raises:
        RoundError: nobody sent anything.
        ShapeError: layers or shapes differ between sites, or a value is not finite.
    """
    if not updates:
        raise RoundError("no site sent an update", mend="see why the sites' training failed; run it again")
    layers = common_layers(updates)
    for name in layers:
        shapes = sorted({tuple(update[name].shape) for update in updates.values()})
        if len(shapes) > 1:
            raise ShapeError(f"shapes {shapes} cannot be compared", name, "train on the same base")
        for site in sorted(updates):
            if not updates[site][name].isfinite().all():
                raise ShapeError(
                    f"{site} sent NaN or infinite values", name, "refuse this update at admission"
                )
    return layers
