"""An adapter under a byte budget: which ranks to send, and what stays behind for the next round.

Every layer is brought into its singular components; component k of a layer holds ``σ_k²`` of the squared norm and
costs the bytes of one column, one row and their scales. Components are taken over all layers in order of ``σ² /
bytes``, so a layer gets as many ranks as it earns, and perhaps none.
"""

from __future__ import annotations

import math
from itertools import accumulate

import torch

from model.errors import ConfigError, PackageError, ShapeError
from model.factors import Adapter, Factors, adapter_norm, sum_adapters, truncate, truncate_adapter
from model.package import Dtype, Sizes, component_bytes, package_bytes


def fit_to_bytes(adapter: Adapter, n_bytes: int, dtype: Dtype) -> dict[str, Factors]:
    """The most energy per byte whose package is at most ``n_bytes`` long.

    Greedy: a component that does not fit is passed over, with all further ones of its layer, and cheaper ones are
    tried. The index entry of a layer (name and sizes) counts against the budget, but not in the order.

    Args:
        adapter: factors of any rank, at least one layer.
        n_bytes: budget for the whole package, header included.
        dtype: the package's.

    Returns:
        Balanced float64 factors by name, sorted; layers without a component are absent. A zero adapter gives one
        zero component, of the layer where that is cheapest.

    Raises:
        PackageError: the first component alone is beyond the budget.
        ShapeError: no layers, or values that are not finite.

    Source: Eckart-Young theorem per layer; the greedy rule for the knapsack over layers (Dantzig, "Discrete-Variable
    Extremum Problems", Operations Research 5, 1957).
    """
    full = _components(adapter)
    order = _by_energy_per_byte(full, dtype) or [(0.0, _cheapest(full, dtype))]
    chosen: dict[str, Sizes] = {}
    closed: set[str] = set()
    for _, name in order:
        if name in closed:
            continue
        tried = {**chosen, name: _one_more(full[name], chosen.get(name))}
        size = package_bytes(tried, dtype)
        if size <= n_bytes:
            chosen = tried
        elif chosen:
            closed.add(name)
        else:
            raise PackageError(
                f"the best component alone makes {size} bytes, the budget is {n_bytes}",
                f"layer {name}",
                "raise the byte budget",
            )
    return _cut(full, {name: rank for name, (_, _, rank) in chosen.items()})


def keep_energy(adapter: Adapter, energy: float, dtype: Dtype = "int8") -> dict[str, Factors]:
    """Ranks chosen so that the whole adapter keeps a share of its squared norm in few bytes.

    Args:
        adapter: factors of any rank, at least one layer.
        energy: share of ``Σ_layers ‖ΔW‖²`` to keep, above 0 and at most 1; 1 keeps every component above rounding.
        dtype: in which bytes are counted; only their ratios between layers matter.

    Returns:
        Balanced float64 factors by name, sorted; the shortest run of components in order of ``σ² / bytes`` that
        holds the share. Layers without a component are absent; a zero adapter is treated as in
        :func:`fit_to_bytes`.

    Raises:
        ConfigError: ``energy`` is out of bounds.
        ShapeError: no layers, or values that are not finite.
    """
    if not 0 < energy <= 1:
        raise ConfigError(f"energy {energy} is not above 0 and at most 1", mend="name a share such as 0.95")
    full = _components(adapter)
    order = _by_energy_per_byte(full, dtype) or [(0.0, _cheapest(full, dtype))]
    sums = list(accumulate(squared for squared, _ in order))
    n_kept = 1 + sum(reached < energy * sums[-1] for reached in sums[:-1])
    ranks: dict[str, int] = {}
    for _, name in order[:n_kept]:
        ranks[name] = ranks.get(name, 0) + 1
    return _cut(full, ranks)


def left_behind(wanted: Adapter, sent: Adapter, rank_max: int) -> dict[str, Factors]:
    """Error feedback: what the receiver does not have yet, ``wanted − sent``, to be added to the next update.

    Args:
        wanted: the update, with what earlier rounds left behind.
        sent: what the receiver decodes, quantisation included; a layer it lacks was not sent at all.
        rank_max: kept rank per layer; from the sum of both ranks nothing is lost.

    Returns:
        Balanced float64 factors of every layer of either, sorted by name.

    Source: Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019,
    EF-SGD, with a round's whole update in place of a step. Departure: the residual itself is cut to ``rank_max``.
    """
    return truncate_adapter(sum_adapters([(1.0, wanted), (-1.0, sent)]), rank_max)[0]


def energy_kept(wanted: Adapter, sent: Adapter) -> float:
    """Share of the squared norm that arrives: ``1 − ‖wanted − sent‖² / ‖wanted‖²``.

    Args:
        wanted: the update.
        sent: what the receiver decodes.

    Returns:
        1 for all of it, 0 for nothing, below 0 where sending nothing had been better. If ``wanted`` is zero: 1 for a
        ``sent`` that is zero too, otherwise −∞.
    """
    whole = adapter_norm(wanted) ** 2
    lost = adapter_norm(sum_adapters([(1.0, wanted), (-1.0, sent)])) ** 2
    if whole == 0:
        return 1.0 if lost == 0 else -math.inf
    return 1.0 - lost / whole


def _components(adapter: Adapter) -> dict[str, Factors]:
    """Balanced factors per layer, largest component first, without those that are only rounding."""
    if not adapter:
        raise ShapeError("the adapter has no layers", mend="train at least one layer")
    full = {}
    for name in sorted(adapter):
        B, A = adapter[name]
        if not (torch.isfinite(B).all() and torch.isfinite(A).all()):
            raise ShapeError("NaN or infinite values", f"layer {name}", "lower the learning rate and retrain")
        balanced, _ = truncate(adapter[name], max(1, A.shape[0]))
        sigmas = _sigmas(balanced)
        noise = sigmas[0] * max(B.shape[0], A.shape[1]) * torch.finfo(torch.float64).eps
        full[name] = _head(balanced, max(1, int((sigmas > noise).sum())))
    return full


def _sigmas(balanced: Factors) -> torch.Tensor:
    """Singular values of balanced factors: ``B = U √Σ``, so they are the squared lengths of its columns."""
    return balanced.B.square().sum(dim=0)


def _by_energy_per_byte(full: Adapter, dtype: Dtype) -> list[tuple[float, str]]:
    """``(σ², layer)`` of all components above zero; the k-th entry of a layer is its k-th component."""
    listed = []
    for name, factors in full.items():
        cost = component_bytes(factors.B.shape[0], factors.A.shape[1], dtype)
        squares = _sigmas(factors).square().tolist()
        listed += [(squared / cost, squared, name) for squared in squares if squared > 0]
    listed.sort(key=lambda entry: -entry[0])
    return [(squared, name) for _, squared, name in listed]


def _cheapest(full: Adapter, dtype: Dtype) -> str:
    return min(full, key=lambda name: package_bytes({name: _one_more(full[name], None)}, dtype))


def _one_more(factors: Factors, before: Sizes | None) -> Sizes:
    return factors.B.shape[0], factors.A.shape[1], (before[2] if before else 0) + 1


def _head(factors: Factors, rank: int) -> Factors:
    return Factors(factors.B[:, :rank].contiguous(), factors.A[:rank].contiguous())


def _cut(full: Adapter, ranks: dict[str, int]) -> dict[str, Factors]:
    return {name: _head(full[name], ranks[name]) for name in sorted(ranks)}
