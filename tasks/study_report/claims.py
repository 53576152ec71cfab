"""The study's targets, each decided by its numbers or called unclear."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

import pandas as pd

from tasks.study_report.estimates import BOOTSTRAP, ROUNDING, Bootstrap, Estimate, compare
from tasks.study_report.methods import bytes_ratio
from tasks.study_report.roles import Roles
from tasks.study_report.rows import SEEDS, View, of_cell, prepare
from tasks.study_report.scenarios import POINT
from tasks.study_report.words import counted, estimate_words

MARGIN = 0.005
"""Dice that our method may lie below the reference."""
PRICE = 0.005
"""Dice that a default defence may cost where nobody misbehaves."""
BYTES_RATIO = 100.0
MEAN_WEIGHT, LEAST_WEIGHT = 0.9, 0.5

Verdict = Literal["yes", "by the mean", "no", "unclear"]


@dataclass(frozen=True)
class Claim:
    """One target and what was measured.

    Attributes:
        claim: what is claimed.
        target: the condition in words.
        measured: the numbers it was decided by.
        met: ``by the mean`` where the mean meets the target and the interval reaches beyond it; ``unclear`` where the
            data do not decide, or are missing.
    """

    claim: str
    target: str
    measured: str
    met: Verdict


def claims_table(
    cases: pd.DataFrame,
    cells: pd.DataFrame,
    scenarios: pd.DataFrame,
    roles: Roles,
    *,
    full_bytes: float = math.nan,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> pd.DataFrame:
    """The study's targets, decided by its numbers.

    - Honest weights, clean federation: the mean over seeds of the mean honest weight is at least 0.9, and no honest
      weight of any round and seed lies below 0.5. Yes needs weights of every seed that was run.
    - Price, clean federation: the mean paired difference of our method to the plain merge is at least −0.005.
    - A scenario of attack or faulty rater: the mean paired difference of our method to itself in the scenario's
      clean twin, on honest sites, is at least −0.010: yes if its whole interval is. The plain merge under attack
      stands beside it.
    - Reference: the interval of ours − reference lies at or above −0.005, and full weights are at least 100 times
      the uploaded bytes. No: the interval lies below −0.005, or the bytes miss.
    - Cross-client: on patients of other sites (mean over the owners of the models) our personal models, and our
      global model, exceed models trained alone. Yes: interval above zero. No: interval below zero.
    - In-client: on own patients our adapted models are not worse than models trained alone. Yes: the interval
      reaches zero or lies above it. No: it lies below zero.

    Args:
        cases: as for ``method_table``.
        cells: as for ``method_table``.
        scenarios: of ``scenario_table``, our method and the plain merge in it.
        roles: the names of methods and scenarios.
        full_bytes: size of the full weights.
        bootstrap: how intervals are drawn.

    Returns:
        A row per claim, columns of ``Claim``. What was not run is ``unclear`` and says so.

    Raises:
        DataError: as for ``method_table``.
    """
    rows = prepare(cases, cells)
    attacks = [_attack_claim(scenarios, roles, scenario) for scenario in roles.attacks]
    faults = [
        _loss_claim(scenarios, roles, f"With a faulty rater: {scenario}", scenario)
        for scenario in roles.rater_faults
    ]
    alone = [_alone_claims(rows, roles, local, bootstrap) for local in roles.local]
    claims = [
        _weights_claim(of_cell(cells, roles.ours, roles.clean)),
        _price_claim(rows, roles, bootstrap),
        *attacks,
        *faults,
        _reference_claim(rows, cells, roles, full_bytes, bootstrap),
        *(claim for claims in alone for claim in claims),
    ]
    return pd.DataFrame([asdict(claim) for claim in claims])


def _weights_claim(costs: pd.DataFrame) -> Claim:
    target = f"mean ≥ {MEAN_WEIGHT}, none < {LEAST_WEIGHT} in any seed"
    rated = costs.dropna(subset=["weights_mean", "weights_min"]).sort_values(SEEDS)
    claim = "Honest sites keep their weight in a clean federation"
    if rated.empty:
        return Claim(claim, target, "not run", "unclear")
    mean, least = float(rated["weights_mean"].mean()), float(rated["weights_min"].min())
    seeds = zip(*(rated[c].tolist() for c in (*SEEDS, "weights_mean", "weights_min")), strict=True)
    each = "; ".join(f"{s}/{t}: {m:.3f}, lowest {low:.2f}" for s, t, m, low in seeds)
    unknown = len(costs) - len(rated)
    lacking = f"; {counted(unknown, 'seed')} without weights" if unknown else ""
    good = mean >= MEAN_WEIGHT - ROUNDING and least >= LEAST_WEIGHT - ROUNDING
    measured = f"mean {mean:.3f}, lowest {least:.2f} (split/training seed {each}{lacking})"
    return Claim(claim, target, measured, _verdict(good and not unknown, not good))


def _price_claim(rows: pd.DataFrame, roles: Roles, bootstrap: Bootstrap) -> Claim:
    claim = f"In a clean federation {roles.ours} costs little enough to be the default"
    target = f"at most {100 * PRICE:g} points of Dice below {roles.plain}"
    found = compare(rows, (roles.ours, roles.clean, "main"), (roles.plain, roles.clean, "main"), bootstrap)
    return Claim(claim, target, estimate_words(found), _bounded(found, PRICE))


def _attack_claim(scenarios: pd.DataFrame, roles: Roles, scenario: str) -> Claim:
    ours = _loss_claim(scenarios, roles, f"Under attack: {scenario}", scenario)
    return replace(ours, measured=f"{ours.measured}; {_loss_words(scenarios, scenario, roles.plain)}")


def _loss_claim(scenarios: pd.DataFrame, roles: Roles, claim: str, scenario: str) -> Claim:
    twin = roles.beside.get(scenario, roles.clean)
    target = f"{roles.ours} loses at most {100 * POINT:g} point of Dice, compared with itself in {twin}"
    ours = _row_of(scenarios, scenario, roles.ours)
    met = "unclear" if ours is None else _bounded(ours, POINT)
    return Claim(claim, target, _loss_words(scenarios, scenario, roles.ours), met)


def _loss_words(scenarios: pd.DataFrame, scenario: str, method: str) -> str:
    found = _row_of(scenarios, scenario, method)
    unpaired = found is not None and math.isnan(found.mean)
    return f"{method} {'not run with its clean twin' if unpaired else estimate_words(found)}"


def _reference_claim(
    rows: pd.DataFrame, cells: pd.DataFrame, roles: Roles, full_bytes: float, bootstrap: Bootstrap
) -> Claim:
    claim = f"Adapters alone reach {roles.reference}"
    target = f"interval of the difference ≥ −{MARGIN}, bytes ≤ 1/{BYTES_RATIO:g} of full weights"
    found = compare(
        rows, (roles.ours, roles.clean, "global"), (roles.reference, roles.clean, "global"), bootstrap
    )
    ratio = bytes_ratio(full_bytes, of_cell(cells, roles.ours, roles.clean)["upload_bytes"].mean())
    small = ratio >= BYTES_RATIO - ROUNDING
    words = "bytes unknown" if math.isnan(ratio) else f"bytes 1/{ratio:.0f}"
    met = _verdict(
        small and found.low >= -MARGIN - ROUNDING, ratio < BYTES_RATIO - ROUNDING or found.high < -MARGIN
    )
    return Claim(claim, target, f"{estimate_words(found)}; {words}", met)


def _alone_claims(rows: pd.DataFrame, roles: Roles, local: str, bootstrap: Bootstrap) -> list[Claim]:
    claims = []
    kinds: tuple[tuple[View, str], ...] = (("others", "adapted models"), ("global", "the global model"))
    for view, words in kinds:
        found = compare(rows, (roles.ours, roles.clean, view), (local, roles.clean, "others"), bootstrap)
        claim = f"On other sites' patients {words} against {local}"
        met = _verdict(found.low > 0, found.high < 0)
        claims.append(Claim(claim, "above, interval excludes zero", estimate_words(found), met))
    found = compare(rows, (roles.ours, roles.clean, "own"), (local, roles.clean, "own"), bootstrap)
    met = _verdict(found.high >= 0, found.high < 0)
    claim = f"On own patients adapted models against {local}"
    return [*claims, Claim(claim, "not below, interval reaches zero", estimate_words(found), met)]


def _bounded(found: Estimate, margin: float) -> Verdict:
    """Whether a loss stays within a margin."""
    if math.isnan(found.mean):
        return "unclear"
    if found.mean < -margin - ROUNDING:
        return "no"
    return "yes" if found.low >= -margin - ROUNDING else "by the mean"


def _verdict(yes: bool, no: bool) -> Verdict:
    return "no" if no else "yes" if yes else "unclear"


def _row_of(scenarios: pd.DataFrame, scenario: str, method: str) -> Estimate | None:
    if (scenario, method) not in scenarios.index:
        return None
    row = scenarios.xs((scenario, method)).to_dict()
    counts = (int(row[name]) for name in ("paired_seeds", "paired_patients", "left_out"))
    return Estimate(float(row["difference"]), float(row["low"]), float(row["high"]), *counts)
