"""The merge of very many updates: layer by layer, every update read and let go, never two held together.

Stacking factors (:mod:`model.merge`) holds every update and grows with the sum of their ranks. Here a layer costs
one band of its dense sum, a Gram matrix of its smaller side, and that matrix's eigenvectors, however many updates
there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple, Protocol

import torch
from scipy.linalg import eigh
from torch import Tensor

from model.errors import RankError, ShapeError
from model.factors import Factors, stack, truncate

Part = tuple[float, Factors]
"""Coefficient c_k and one update's factors of the layer."""

BAND_BYTES = 1_500_000
"""Size of the piece of the dense sum that is held at a time."""

_COLUMNS = 128  # of a band, in float64 at a time
_FEW = 16  # smaller side ÷ sum of ranks, from which updates are few enough to be stacked
_ROUNDING = 1e-8
"""Of the largest singular value: what lies below is rounding, for a Gram matrix squares what it measures."""


class Source(Protocol):
    """One update that can be read layer by layer, any number of times."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers it changes."""

    def factors(self, name: str) -> Factors:
        """Read the factors of one of its layers."""


class MergedLayer(NamedTuple):
    """One layer of the merged update.

    Attributes:
        name: parameter name of the base.
        factors: balanced float64 factors.
        cut: Frobenius norm of what the rank budget cut.
    """

    name: str
    factors: Factors
    cut: float


def merge_sources(sources: Sequence[tuple[float, Source]], rank: int) -> Iterator[MergedLayer]:
    """``Σ_k c_k Δ_k`` at a rank budget, one layer after the other, so that the caller can put each away.

    Args:
        sources: ``(c_k, update)``; a layer that an update lacks counts as zero.
        rank: budget per layer.

    Yields:
        Every layer that any update has, sorted by name; nothing for no updates.
    """
    having: dict[str, list[tuple[float, Source]]] = {}
    for pair in sources:
        for name in pair[1].layers:
            having.setdefault(name, []).append(pair)
    for name in sorted(having):
        yield MergedLayer(
            name, *merge_layer(_LayerParts(having[name], name), rank)
        )  # no name: it is not kept


def merge_layer(parts: Iterable[Part], rank: int, band_bytes: int = BAND_BYTES) -> tuple[Factors, float]:
    """Best rank-``rank`` factors of ``Σ_k c_k B_k A_k``, the parts read one at a time.

    While ``16 Σ r_k`` stays within the smaller side, stacking is cheaper in time and memory, and
    :func:`model.factors.truncate` does the work. Beyond it the sum ``D (n, m)``, n ≤ m, is formed in float32 bands
    of columns, and from them the float64 Gram matrix ``G = D Dᵀ``. The leading eigenvectors U of G are D's left
    singular vectors, and ``Uᵀ D`` is the other factor.

    Args:
        parts: ``(c_k, factors)`` of one layer. What can be iterated again, such as a list, is walked once per
            band and once for ``Uᵀ D``; an iterator is walked once, and then the band is the whole layer.
        rank: kept rank, at least 1.
        band_bytes: size of a band; at least one column is held.

    Returns:
        Balanced float64 factors, rank at most ``rank`` and the smaller side, singular values below 1e-8 of the
        largest left out; and the Frobenius norm of what was cut. The order of the parts matters to rounding only.

    Raises:
        ShapeError: no parts, or outer sizes differ.
        RankError: ``rank < 1``, or factors that do not multiply.

    Source: Eckart-Young theorem; method of snapshots (Sirovich, Quarterly of Applied Mathematics 45, 1987).
    """
    if rank < 1:
        raise RankError(f"rank {rank} is below 1", mend="raise the rank budget")
    walk = iter(parts)
    once = walk is parts
    first, few = _first_parts(walk, keep=once)
    if few:
        return truncate(stack(first if once else parts), rank)
    out, inner = first[-1][1].B.shape[0], first[-1][1].A.shape[1]
    if once:
        return _Layer(chain(first, walk), out, inner).merged(rank, max(out, inner))
    del first, walk
    return _Layer(parts, out, inner).merged(rank, band_bytes // (4 * min(out, inner)))


class _LayerParts:
    """One layer of several updates; each walk reads them anew."""

    def __init__(self, sources: list[tuple[float, Source]], name: str) -> None:
        self.sources, self.name = sources, name

    def __iter__(self) -> Iterator[Part]:
        return ((c, source.factors(self.name)) for c, source in self.sources)


class _Layer:
    """The dense sum of one layer, never held whole unless the parts can be walked only once.

    It lies so that its rows are the smaller side: transposed where ``out > in``.
    """

    def __init__(self, parts: Iterable[Part], out: int, inner: int) -> None:
        self.parts, self.out, self.inner = parts, out, inner
        self.n, self.m = min(out, inner), max(out, inner)

    def merged(self, rank: int, width: int) -> tuple[Factors, float]:
        """Factors of rank at most ``rank``, from bands of ``width`` columns, and the norm of what was cut."""
        n_bands = -(-self.m // max(1, width))
        edges = [i * self.m // n_bands for i in range(n_bands + 1)]
        gram = torch.zeros(self.n, self.n, dtype=torch.float64)
        for start, stop in pairwise(edges):
            band = self._band(start, stop)
            for piece in torch.split(band, _COLUMNS, dim=1):
                columns = piece.double()
                gram.addmm_(columns, columns.T)
            if n_bands > 1:
                del band, piece, columns
        U, cut = _leading(gram, min(rank, self.n))
        del gram
        rows = U.T @ band.double() if n_bands == 1 else self._projected(U)
        return self._balanced(U, rows), cut

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """``(n, r)`` with the coefficient inside and ``(r, m)`` of every part."""
        for c, (B, A) in self.parts:
            if (B.shape[0], A.shape[1]) != (self.out, self.inner):
                raise ShapeError(
                    f"factors of {B.shape[0]} × {A.shape[1]} cannot be added to {self.out} × {self.inner}",
                    mend="merge updates of one layer only",
                )
            if B.shape[1] != A.shape[0]:
                raise RankError(
                    f"B has {B.shape[1]} columns, A has {A.shape[0]} rows",
                    mend="send both factors of one layer",
                )
            yield (c * A.T.double(), B.T) if self.out > self.inner else (c * B.double(), A)

    def _band(self, start: int, stop: int) -> Tensor:
        """Columns of the dense sum, ``(n, stop − start)`` float32."""
        band = torch.zeros(self.n, stop - start)
        for left, right in self._pairs():
            band.addmm_(left.float(), right[:, start:stop].float())
        return band

    def _projected(self, U: Tensor) -> Tensor:
        """``Uᵀ D (k, m)``, from one more walk and without D."""
        rows = torch.zeros(U.shape[1], self.m, dtype=torch.float64)
        for left, right in self._pairs():
            rows.addmm_(U.T @ left, right.double())
        return rows

    def _balanced(self, U: Tensor, rows: Tensor) -> Factors:
        """``U (n, k)`` and ``Uᵀ D (k, m)``, in place: singular values shared evenly, rounding left out."""
        singular = rows.norm(dim=1)
        k = max(1, int((singular > _ROUNDING * singular.max()).sum()))
        root = singular.sqrt()
        left, right = U.mul_(root), rows.div_(root.clamp_min(torch.finfo(torch.float64).tiny)[:, None])
        if k < len(singular):
            left, right = left[:, :k].clone(), right[:k].clone()
        return Factors(right.T, left.T) if self.out > self.inner else Factors(left, right)


def _first_parts(walk: Iterator[Part], keep: bool) -> tuple[list[Part], bool]:
    """Read parts until their ranks add up to more than a sixteenth of the smaller side; were they all?

    All that were read are returned, or the last one where they need not be kept.
    """
    read: list[Part] = []
    ranks = 0
    for part in walk:
        read = [*read, part] if keep else [part]
        ranks += part[1].rank
        if _FEW * ranks > min(part[1].B.shape[0], part[1].A.shape[1]):
            return read, False
    return read, True


def _leading(gram: Tensor, k: int) -> tuple[Tensor, float]:
    """The ``k`` leading eigenvectors ``(n, k)`` of ``gram``, which is overwritten, and the norm of what they leave.

    LAPACK's ``dsyevr`` through SciPy finds only these, in place; torch's ``eigh`` would take three more matrices of
    gram's size.
    """
    n = gram.shape[0]
    whole = float(gram.trace())
    values, vectors = eigh(
        gram.numpy().T, subset_by_index=(n - k, n - 1), driver="evr", overwrite_a=True, check_finite=False
    )
    U = torch.from_numpy(vectors[:, ::-1].copy())
    return U, math.sqrt(max(0.0, whole - float(values.sum())))
