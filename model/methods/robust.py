"""Robust aggregation: rules that a few arbitrary updates cannot carry away. Sites weigh alike, whatever their data.

Updates are dense: site → layer → tensor, the same layers and shapes everywhere. Results are float64.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from model.errors import ConfigError, RoundError
from model.methods.checks import check_dense

Dense = Mapping[str, Mapping[str, Tensor]]
"""Site → layer → update."""


def coordinate_median(updates: Dense) -> dict[str, Tensor]:
    """Median of every coordinate over the sites; of an even number, the mean of the middle two.

    Args:
        updates: at least one site.

    Returns:
        Layer → float64 tensor, layers sorted by name.

    Raises:
        RoundError: nobody sent an update.
        ShapeError: layers or shapes differ, or values are not finite.

    Source: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018,
        definition 1.
    """
    layers = check_dense(updates)
    return {name: _middle(updates, name, (len(updates) - 1) // 2) for name in layers}


def trimmed_mean(updates: Dense, trim: int) -> dict[str, Tensor]:
    """Mean of every coordinate over the sites, without its ``trim`` largest and ``trim`` smallest values.

    Args:
        updates: more than ``2 · trim`` sites.
        trim: values dropped at each end; 0 is the plain mean.

    Returns:
        Layer → float64 tensor, layers sorted by name.

    Raises:
        ConfigError: ``trim`` is negative.
        RoundError: nothing is left after trimming.
        ShapeError: layers or shapes differ, or values are not finite.

    Source: Yin et al., ICML 2018, definition 2; the fraction β of the paper is ``trim / n``.
    """
    layers = check_dense(updates)
    if trim < 0:
        raise ConfigError(f"trim is {trim}", mend="choose 0 or more")
    if len(updates) <= 2 * trim:
        raise RoundError(
            f"trimming {trim} at each end needs {2 * trim + 1} sites, {len(updates)} sent an update",
            mend="lower trim or wait for more sites",
        )
    return {name: _middle(updates, name, trim) for name in layers}


def krum(updates: Dense, faulty: int) -> str:
    """The site whose update lies closest to its neighbours: least sum of squared distances to the n − f − 2 nearest.

    Args:
        updates: at least ``2 f + 3`` sites.
        faulty: f, how many updates may be arbitrary.

    Returns:
        The chosen site; of equal scores the first name.

    Raises:
        ConfigError: ``faulty`` is negative.
        RoundError: too few sites for this many faulty ones.
        ShapeError: layers or shapes differ, or values are not finite.

    Source: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS
        2017, section 4; ties go to the smallest identifier as there.
    """
    layers = check_dense(updates)
    if faulty < 0:
        raise ConfigError(f"faulty is {faulty}", mend="choose 0 or more")
    n, needed = len(updates), 2 * faulty + 3
    if n < needed:
        raise RoundError(
            f"Krum against {faulty} faulty sites needs {needed} sites, {n} sent an update",
            mend="lower the number of faulty sites or wait for more sites",
        )
    sites = sorted(updates)
    flat = [torch.cat([updates[site][name].double().flatten() for name in layers]) for site in sites]
    scores = {site: _score(k, flat, n - faulty - 2) for k, site in enumerate(sites)}
    return min(sites, key=scores.__getitem__)


def krum_update(updates: Dense, faulty: int) -> dict[str, Tensor]:
    """The update of the site that :func:`krum` chooses, float64, layers sorted by name."""
    chosen = updates[krum(updates, faulty)]
    return {name: chosen[name].double() for name in sorted(chosen)}


def _score(k: int, flat: list[Tensor], nearest: int) -> float:
    distances = (float((flat[k] - other).square().sum()) for j, other in enumerate(flat) if j != k)
    return sum(sorted(distances)[:nearest])


def _middle(updates: Dense, name: str, trim: int) -> Tensor:
    ranked = torch.stack([updates[site][name].double() for site in sorted(updates)]).sort(dim=0).values
    return ranked[trim : len(updates) - trim].mean(dim=0)
