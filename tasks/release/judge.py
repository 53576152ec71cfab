"""The gate: every structure, pathology and vendor, new model against released one, over the cells of all sites."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from model.gate import Pairs, compare, pool
from tasks.clinical.agree import FEWEST
from tasks.records import PairedCell
from tasks.release.paired import EVERYBODY, GOALS, KINDS, PLACES, as_pairs
from tasks.release.records import Finding

DECIMALS = 6


def judge_cells(
    cells: Iterable[PairedCell], strata: Mapping[str, Iterable[str]], fewest: int = FEWEST
) -> tuple[Finding, ...]:
    """Pool what the sites say of their patients, and compare two models stratum by stratum.

    Args:
        cells: of all sites, as :func:`tasks.release.paired.paired_cells` returns them.
        strata: kind → names of all strata that are known, cells or not.
        fewest: patients below which a stratum decides nothing.

    Returns:
        A finding per stratum, structure and metric, in a fixed order; of a stratum of which nothing was said, one
        without numbers.
    """
    by_place: dict[tuple[str, str, str, str], list[PairedCell]] = defaultdict(list)
    known = {kind: set(strata.get(kind, ())) for kind in KINDS} | {"structure": {EVERYBODY}}
    for cell in cells:
        by_place[cell.kind, cell.stratum, cell.structure, cell.metric].append(cell)
        known[cell.kind].add(cell.stratum)
    return tuple(
        _finding((kind, stratum, *place), by_place[kind, stratum, *place], fewest)
        for kind in KINDS
        for stratum in sorted(known[kind])
        for place in PLACES
    )


def worse_findings(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Those that refuse the release."""
    return tuple(finding for finding in findings if finding.verdict == "worse")


def undecided_findings(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Those with too few patients."""
    return tuple(finding for finding in findings if finding.verdict == "not decidable")


def _finding(place: tuple[str, str, str, str], cells: list[PairedCell], fewest: int) -> Finding:
    kind, stratum, structure, metric = place
    pairs, left_out = pool([as_pairs(cell) for cell in cells]), [cell.left_out for cell in cells]
    found = compare(pairs, GOALS[metric], fewest)
    released, candidate = _means(pairs, metric)
    return Finding(
        kind=kind,
        stratum=stratum,
        structure=structure,
        metric=metric,
        patients=pairs.n,
        left_out=sum(left_out) if left_out else None,
        released=released,
        candidate=candidate,
        difference=_or_none(found.difference),
        low=_or_none(found.low),
        high=_or_none(found.high),
        verdict=found.verdict,
    )


def _means(pairs: Pairs, metric: str) -> tuple[float | None, float | None]:
    """Of both models; of a bias, its size."""
    size = abs if GOALS[metric] == "small" else float
    return _or_none(size(pairs.released)), _or_none(size(pairs.candidate))


def _or_none(value: float) -> float | None:
    return round(value, DECIMALS) if math.isfinite(value) else None
