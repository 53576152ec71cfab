"""Low-rank factors of a weight update, and their algebra: the product is never formed.

Shapes: ``B (out, r)``, ``A (r, in)`` where ``in`` counts input channels × kernel; the scaling alpha / r is already
inside B. A bias update is the pair ``B (out, 1)``, ``A = [[1]]``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from model.errors import RankError, ShapeError


class Factors(NamedTuple):
    """One layer's update ``ΔW = B @ A``."""

    B: Tensor
    A: Tensor

    @property
    def rank(self) -> int:
        """Inner size r."""
        return int(self.A.shape[0])

    def product(self) -> Tensor:
        """The dense ``(out, in)`` update; for tests and folding only."""
        return self.B @ self.A


Adapter = Mapping[str, Factors]
"""Parameter name of the base → its update."""


def stack(parts: Iterable[tuple[float, Factors]]) -> Factors:
    """Factors of ``Σ_k c_k B_k A_k``: columns side by side, rows on top of each other.

    Args:
        parts: ``(c_k, factors)``, all of one layer.

    Returns:
        float64 factors of rank ``Σ r_k``; the product equals the dense sum to rounding.

    Raises:
        ShapeError: no parts, or outer sizes differ.
    """
    listed = list(parts)
    sizes = {(p.B.shape[0], p.A.shape[1]) for _, p in listed}
    if len(sizes) != 1:
        raise ShapeError(
            f"factors of sizes {sorted(sizes)} cannot be added", mend="stack updates of one layer only"
        )
    return Factors(
        torch.cat([c * p.B.double() for c, p in listed], dim=1),
        torch.cat([p.A.double() for _, p in listed], dim=0),
    )


def truncate(factors: Factors, rank: int) -> tuple[Factors, float]:
    """Best rank-``rank`` factors of ``B @ A``, without forming the product.

    QR of both factors, SVD of the small core: O((out + in) R² + R³). The singular values are shared evenly
    between both factors, which is what row-wise quantisation wants.

    Args:
        factors: ``B (out, R)``, ``A (R, in)``.
        rank: kept rank, at least 1; above the true rank nothing is lost.

    Returns:
        Balanced float64 factors of rank ``k = min(rank, R, out, in)``, and the Frobenius norm of what was cut.

    Raises:
        RankError: inner sizes differ, or ``rank < 1``.

    Source: Eckart-Young theorem.
    """
    B, A = factors.B.double(), factors.A.double()
    if B.shape[1] != A.shape[0]:
        raise RankError(
            f"B has {B.shape[1]} columns, A has {A.shape[0]} rows", mend="send both factors of one layer"
        )
    if rank < 1:
        raise RankError(f"rank {rank} is below 1", mend="raise the rank budget")
    Qb, Rb = torch.linalg.qr(B)
    Qa, Ra = torch.linalg.qr(A.T)
    U, S, Vh = torch.linalg.svd(Rb @ Ra.T, full_matrices=False)
    k = min(rank, S.numel())
    root = S[:k].sqrt()
    kept = Factors(Qb @ U[:, :k] * root, root[:, None] * (Vh[:k] @ Qa.T))
    return kept, float(S[k:].square().sum().sqrt())


def norm(factors: Factors) -> float:
    """Frobenius norm of ``B @ A``, from the two Gram matrices: ``√ tr(BᵀB · AAᵀ)``."""
    B, A = factors.B.double(), factors.A.double()
    return math.sqrt(max(0.0, float(((B.T @ B) * (A @ A.T)).sum())))


def adapter_norm(adapter: Adapter) -> float:
    """Frobenius norm of a whole update, over all its layers."""
    return math.sqrt(sum(norm(f) ** 2 for f in adapter.values()))


def sum_adapters(parts: Iterable[tuple[float, Adapter]]) -> dict[str, Factors]:
    """``Σ_k c_k Δ_k`` layer by layer; a layer that an adapter lacks counts as zero.

    Args:
        parts: ``(c_k, adapter)``; the order of the adapters does not change the product.

    Returns:
        Stacked float64 factors per layer, layers sorted by name; empty for no parts.
    """
    layers: dict[str, list[tuple[float, Factors]]] = {}
    for c, adapter in parts:
        for name, factors in adapter.items():
            layers.setdefault(name, []).append((c, factors))
    return {name: stack(layers[name]) for name in sorted(layers)}


def truncate_adapter(adapter: Adapter, rank: int) -> tuple[dict[str, Factors], float]:
    """Every layer cut to ``rank``; see :func:`truncate`.

    Args:
        adapter: factors of any rank.
        rank: kept rank per layer.

    Returns:
        Balanced factors and the fraction of the squared norm that was cut, 0 for an empty or zero adapter.
    """
    kept: dict[str, Factors] = {}
    lost = 0.0
    for name, factors in adapter.items():
        kept[name], cut = truncate(factors, rank)
        lost += cut**2
    whole = lost + sum(norm(f) ** 2 for f in kept.values())
    return kept, lost / whole if whole > 0 else 0.0


def factorise(delta: Tensor, rank: int) -> tuple[Factors, float]:
    """Best rank-``rank`` factors of a dense update.

    Args:
        delta: ``(out, …)`` weight update, flattened to ``(out, in)``; a bias ``(out,)`` becomes ``(out, 1)``.
        rank: kept rank.

    Returns:
        Balanced float64 factors and the Frobenius norm of what was cut.
    """
    flat = delta.double().reshape(delta.shape[0], -1)
    out, inner = flat.shape
    if out < inner:  # the smaller identity: QR of the other would be the larger side cubed
        return truncate(Factors(torch.eye(out, dtype=torch.float64), flat), rank)
    return truncate(Factors(flat, torch.eye(inner, dtype=torch.float64)), rank)


def fold(weights: Mapping[str, Tensor], adapter: Adapter, step: float = 1.0) -> dict[str, Tensor]:
    """``W + step · B A`` for every layer of the adapter; other weights are passed through.

    Args:
        weights: state dict of the base, float32.
        adapter: updates by parameter name.
        step: fraction of the update.

    Returns:
        A new state dict, float32; the input is left as it is.

    Raises:
        ShapeError: a layer is not in the base, or its shape differs.
    """
    folded = dict(weights)
    for name, factors in adapter.items():
        W = weights.get(name)
        if W is None:
            raise ShapeError(f"the base has no layer '{name}'", name, "use an adapter trained on this base")
        delta = factors.B.double() @ factors.A.double()
        if delta.numel() != W.numel() or delta.shape[0] != W.shape[0]:
            raise ShapeError(
                f"update {tuple(delta.shape)} does not fit weight {tuple(W.shape)}",
                name,
                "use an adapter trained on this base",
            )
        folded[name] = (W.double() + step * delta.reshape(W.shape)).float()
    return folded
