"""What a step is added up from, and what it would be without one of its updates, from the factors alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from model.factors import Adapter, Factors
from model.merge import Form, merge_shares, merge_step
from tasks.records import Without


@dataclass(frozen=True)
class Ingredients:
    """What a step is added up from; all by site.

    Attributes:
        updates: as they arrived.
        weights: w_c, as used.
        volumes: v_c, of late updates already discounted.
        clips: factor of norm clipping.
        form: of the merge's denominator.
    """

    updates: Mapping[str, Adapter]
    weights: Mapping[str, float]
    volumes: Mapping[str, float]
    clips: Mapping[str, float]
    form: Form

    def shares(self) -> dict[str, float]:
        """Coefficient of every update before clipping."""
        return merge_shares(self.weights, self.volumes, self.form)

    def step(self) -> dict[str, Factors]:
        """``Σ_c share_c · clip_c · Δ_c``."""
        return merge_step(self.updates, {c: k * self.clips[c] for c, k in self.shares().items()})

    def without(self, site: str) -> Ingredients | None:
        """The same lacking one site; None where no weight would be left."""
        rest = [c for c in self.updates if c != site]
        if not sum(self.weights[c] * self.volumes[c] for c in rest) > 0:
            return None
        return Ingredients(
            updates={c: self.updates[c] for c in rest},
            weights={c: self.weights[c] for c in rest},
            volumes={c: self.volumes[c] for c in rest},
            clips={c: self.clips[c] for c in rest},
            form=self.form,
        )


def inner_products(updates: Mapping[str, Adapter]) -> Tensor:
    """``⟨Δ_a, Δ_b⟩`` over all layers, from the factors: ``tr(B_aᵀ B_b · A_b A_aᵀ)`` per layer.

    Args:
        updates: site → adapter; a layer that one lacks counts as zero.

    Returns:
        ``(n, n)`` float64, sites sorted by name.
    """
    sites = sorted(updates)
    total = torch.zeros(len(sites), len(sites), dtype=torch.float64)
    for name in sorted({name for update in updates.values() for name in update}):
        parts = [(i, updates[site][name]) for i, site in enumerate(sites) if name in updates[site]]
        B = torch.cat([f.B.double() for _, f in parts], dim=1)  # (out, Σ r)
        A = torch.cat([f.A.double() for _, f in parts], dim=0)  # (Σ r, in)
        owner = torch.cat([torch.full((f.rank,), i) for i, f in parts])
        owned = F.one_hot(owner, len(sites)).double()
        total += owned.T @ ((B.T @ B) * (A @ A.T)) @ owned
    return total


def leave_out(used: Ingredients, products: Tensor, site: str) -> Without | None:
    """How the step would differ without one update, if nothing else changed.

    Weights and clipping of the others are held; only their shares are formed anew.

    Args:
        used: what the step was added up from.
        products: of :func:`inner_products`.
        site: whose update is left out.

    Returns:
        Relative change, cosine, and the others' shares; None where no other update has weight.
    """
    rest = used.without(site)
    if rest is None:
        return None
    shares = rest.shares()
    x, y = _coefficients(used, used.shares()), _coefficients(used, shares)

    def length(k: Tensor) -> float:
        return math.sqrt(max(0.0, float(k @ products @ k)))

    a, b = length(x), length(y)
    cosine = float(x @ products @ y) / (a * b) if a * b > 0 else None
    return Without(
        change=round(length(x - y) / a, 6) if a > 0 else None,
        cosine=None if cosine is None else round(max(-1.0, min(1.0, cosine)), 6),
        shares={c: round(k, 6) for c, k in sorted(shares.items())},
    )


def _coefficients(used: Ingredients, shares: Mapping[str, float]) -> Tensor:
    """``(n,)`` share × clipping, sites sorted by name, 0 for those left out."""
    each = [shares.get(c, 0.0) * used.clips[c] for c in sorted(used.updates)]
    return torch.tensor(each, dtype=torch.float64)
