"""The study's tables: which method is how good at what cost, what each scenario costs, and which claims hold.

From frames to frames and files; nothing is trained here. A *cell* is one method in one scenario under one pair of seeds
(split, training). The Dice of a method is the mean over seeds of the mean over sites of the mean over test patients, of
sites that are no attackers. It is the global model's; of a method without one, each site's own model's on its own
patients. Intervals draw patients (``model.statistics.paired_bootstrap``), the same way every time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from model.errors import DataError
from model.statistics import RESAMPLES, mean_sd, nested_weights, paired_bootstrap, sd_between
from tasks.files import write_atomic
from tasks.findings import number, signed, size

SEEDS = ["split_seed", "train_seed"]
CELL = ["method", "scenario", *SEEDS]
STRUCTURES = ["dice_rv", "dice_myo", "dice_lv"]
CASE_KEY = [*CELL, "model", "owner", "site", "patient"]
CASE_COLUMNS = [*CASE_KEY, "honest", "dice", *STRUCTURES]
COSTS = ["upload_bytes", "download_bytes", "seconds", "validation_dice"]
CELL_COLUMNS = [*CELL, *COSTS, "rounds", "steps", "weights_mean", "weights_min", "attacker_weight"]

POINT = 0.010
"""One point of Dice."""
MARGIN = 0.005
"""Dice that our method may lie below the reference."""
BYTES_RATIO = 100.0
MEAN_WEIGHT, LEAST_WEIGHT = 0.9, 0.5
_ROUNDING = 1e-9

View = Literal["main", "global", "own", "others"]
Verdict = Literal["yes", "no", "unclear"]


@dataclass(frozen=True)
class Roles:
    """Which names of the study play which part in its claims.

    Attributes:
        ours: the method with rated merging of adapters.
        average: the same without rating.
        reference: full-weight federated averaging with a tuned learning rate.
        local: every site alone, one claim for each such method; their models are ``personal``.
        clean: the scenario in which nobody misbehaves.
        attacks: scenarios with an attacker among the sites.
        rater_faults: scenarios with a rater that lies, has faulty masks, or has few slices.
    """

    ours: str = "rated"
    average: str = "average"
    reference: str = "fedavg"
    local: tuple[str, ...] = ("local-lora", "local-full")
    clean: str = "clean"
    attacks: tuple[str, ...] = (
        "swapped-labels",
        "shifted-masks",
        "flipped-images",
        "stealthy-poison",
        "scaled-update",
        "sign-flip",
        "noise",
        "free-rider-zero",
        "free-rider-replay",
        "collusion",
    )
    rater_faults: tuple[str, ...] = ("liar", "biased-rater", "tiny-rater")


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn.

    Attributes:
        seed: of every interval's own generator, so that an interval does not depend on the others' order.
        resamples: number of draws.
    """

    seed: int = 0
    resamples: int = RESAMPLES


@dataclass(frozen=True)
class Estimate:
    """A mean Dice, or a mean difference of two, with its 95 % interval.

    Attributes:
        mean: NaN without a patient.
        low: 2.5 % bound.
        high: 97.5 % bound.
        seeds: pairs of seeds in it.
        patients: distinct test patients in it; without ``patient_key`` a patient counts once per split.
        left_out: rows (a patient under one seed) that lack a defined Dice, on one side at least.
    """

    mean: float
    low: float
    high: float
    seeds: int
    patients: int
    left_out: int


@dataclass(frozen=True)
class Claim:
    """One target and what was measured.

    Attributes:
        claim: what is claimed.
        target: the condition in words.
        measured: the numbers it was decided by.
        met: ``unclear`` where the data do not decide, or are missing.
    """

    claim: str
    target: str
    measured: str
    met: Verdict


def method_table(
    cases: pd.DataFrame,
    cells: pd.DataFrame,
    reference: str = "fedavg",
    *,
    scenario: str = "clean",
    full_bytes: float = math.nan,
    bootstrap: Bootstrap = Bootstrap(),
) -> pd.DataFrame:
    """One row per method, the best Dice first; made from the cells that are there.

    Args:
        cases: columns ``CASE_COLUMNS``; optionally ``patient_key``, an opaque id that is the same under every split.
        cells: columns ``CELL_COLUMNS``.
        reference: the method that the others are compared with.
        scenario: which one.
        full_bytes: size of the full weights as a site would upload them.
        bootstrap: how intervals are drawn.

    Returns:
        Index method. ``judged`` (global or own), ``dice`` with ``dice_low``, ``dice_high``, standard deviations over
        seeds (``dice_sd``), splits and training seeds alone (``sd_split``, ``sd_train``); ``dice_rv`` …; paired
        ``difference`` to the reference with ``low``, ``high`` and ``paired_seeds`` (NaN in its own row);
        ``in_client``, ``cross_client`` of personal models with ``_sd``; the mean of ``COSTS``; ``ratio`` of
        full to uploaded bytes, NaN without uploads; ``seeds``, ``patients``, ``undefined`` rows. No rows without
        cells.

    Raises:
        DataError: columns are missing, rows are double, ``honest`` is not boolean, or some patient keys are empty.
    """
    rows = prepare(cases, cells)
    methods = [m for m in _names("method", cells, cases) if _exists(rows, cells, m, scenario)]
    found = {m: _method_row(rows, cells, m, reference, scenario, full_bytes, bootstrap) for m in methods}
    table = pd.DataFrame.from_dict(found, orient="index").rename_axis("method")
    return table.sort_values("dice", ascending=False, kind="stable") if found else table


def scenario_table(
    cases: pd.DataFrame,
    cells: pd.DataFrame,
    methods: Sequence[str] = ("rated", "average"),
    baseline_scenario: str = "clean",
    *,
    bootstrap: Bootstrap = Bootstrap(),
) -> pd.DataFrame:
    """One row per scenario and method: what honest sites lose.

    A difference pairs an honest site's patient with the same patient, under the same seeds, in the baseline
    scenario: by ``patient_key``, or else by site and pseudonym, which supposes that the scenario left the sites and
    the split as they were.

    Args:
        cases: as for ``method_table``.
        cells: as for ``method_table``.
        methods: the first is the rated one.
        baseline_scenario: that of an honest federation.
        bootstrap: how intervals are drawn.

    Returns:
        Index scenario, method, the baseline first. ``dice``, ``dice_sd`` of honest sites; ``difference`` to the same
        method's baseline with ``low``, ``high``; ``to_rated`` to the rated method's baseline, with ``to_rated_low``,
        ``to_rated_high``; ``attacker_weight`` and ``honest_mean`` (means over seeds), ``honest_min`` (over seeds);
        ``within_1_point``: ``difference ≥ −0.010`` of the rated method, not available for others, without pairs, and
        for the baseline itself; ``seeds`` and ``patients`` of ``dice``; ``paired_seeds``, ``paired_patients`` and
        ``left_out`` (rows without a partner) of ``difference``.

    Raises:
        DataError: as for ``method_table``.
    """
    rows = prepare(cases, cells)
    scenarios = sorted(_names("scenario", cells, cases), key=lambda name: name != baseline_scenario)
    pairs = [(s, m) for s in scenarios for m in methods if _exists(rows, cells, m, s)]
    found = [_scenario_row(rows, cells, s, m, methods[0], baseline_scenario, bootstrap) for s, m in pairs]
    index = pd.MultiIndex.from_tuples(pairs, names=["scenario", "method"]) if pairs else None
    table = pd.DataFrame(found, index=index)
    return table.astype({"within_1_point": "boolean"}) if found else table


def claims_table(
    cases: pd.DataFrame,
    cells: pd.DataFrame,
    roles: Roles = Roles(),
    *,
    full_bytes: float = math.nan,
    bootstrap: Bootstrap = Bootstrap(),
) -> pd.DataFrame:
    """The study's targets, decided by its numbers.

    - Honest weights, clean federation: the mean over seeds of the mean honest weight is at least 0.9, and no honest
      weight of any round and seed lies below 0.5. Yes needs weights of every seed that was run.
    - A scenario of attack or faulty rater: the mean paired difference of our method to its own clean federation, on
      honest sites, is at least −0.010. Decided by the mean; the interval and plain averaging stand beside it.
    - Reference: the interval of ours − reference lies at or above −0.005, and full weights are at least 100 times
      the uploaded bytes. No: the interval lies below −0.005, or the bytes miss.
    - Cross-client: on patients of other sites (mean over the owners of the models) our personal models, and our
      global model, exceed models trained alone. Yes: interval above zero. No: interval below zero.
    - In-client: on own patients our adapted models are not worse than models trained alone. Yes: the interval
      reaches zero or lies above it. No: it lies below zero.

    Args:
        cases: as for ``method_table``.
        cells: as for ``method_table``.
        roles: the names of methods and scenarios.
        full_bytes: size of the full weights.
        bootstrap: how intervals are drawn.

    Returns:
        A row per claim, columns of ``Claim``. What was not run is ``unclear`` and says so.

    Raises:
        DataError: as for ``method_table``.
    """
    rows = prepare(cases, cells)
    scenarios = scenario_table(cases, cells, (roles.ours, roles.average), roles.clean, bootstrap=bootstrap)
    attacks = [_scenario_claim(scenarios, roles, s, f"Under attack: {s}") for s in roles.attacks]
    faults = [_scenario_claim(scenarios, roles, s, f"With a faulty rater: {s}") for s in roles.rater_faults]
    alone = [_alone_claims(rows, roles, local, bootstrap) for local in roles.local]
    claims = [
        _weights_claim(_of_cell(cells, roles.ours, roles.clean)),
        *attacks,
        *faults,
        _reference_claim(rows, cells, roles, full_bytes, bootstrap),
        *(claim for claims in alone for claim in claims),
    ]
    return pd.DataFrame([asdict(claim) for claim in claims])


def missing_cells(
    cases: pd.DataFrame, cells: pd.DataFrame, planned: pd.DataFrame | None = None
) -> pd.DataFrame:
    """What the study still lacks.

    Args:
        cases: as for ``method_table``.
        cells: as for ``method_table``.
        planned: columns method, scenario, split_seed, train_seed; without it every method seen in a scenario is
            expected under every pair of seeds seen in that scenario.

    Returns:
        Columns of ``planned`` and ``lacks``: ``run`` (neither costs nor test cases), ``costs`` or ``test cases``.
    """
    ran, tested = (set(map(tuple, frame[CELL].to_numpy().tolist())) for frame in (cells, cases))
    wanted = (
        sorted(_full_grid(ran | tested))
        if planned is None
        else [tuple(row) for row in planned[CELL].to_numpy().tolist()]
    )
    lacks = [
        (c, "run" if c not in ran | tested else "costs" if c not in ran else "test cases") for c in wanted
    ]
    rows = [(*cell, what) for cell, what in lacks if cell not in ran & tested]
    return pd.DataFrame(rows, columns=[*CELL, "lacks"])


def write_study(
    folder: Path,
    cases: pd.DataFrame,
    cells: pd.DataFrame,
    roles: Roles = Roles(),
    *,
    full_bytes: float = math.nan,
    planned: pd.DataFrame | None = None,
    pictures: Mapping[str, bytes] | None = None,
    bootstrap: Bootstrap = Bootstrap(),
) -> tuple[Path, ...]:
    """Write the tables; aggregates over sites only, nothing about a patient or a single site.

    Args:
        folder: gets ``methods.csv``, ``scenarios.csv``, ``claims.csv``, ``cells.csv``, ``README.md`` and the pictures.
        cases: as for ``method_table``.
        cells: as for ``method_table``; columns beyond ``CELL_COLUMNS`` are not written.
        roles: the names of methods and scenarios.
        full_bytes: size of the full weights.
        planned: as for ``missing_cells``.
        pictures: PNG bytes by title.
        bootstrap: how intervals are drawn.

    Returns:
        The files written.

    Raises:
        DataError: as for ``method_table``.
    """
    methods = method_table(
        cases, cells, roles.reference, scenario=roles.clean, full_bytes=full_bytes, bootstrap=bootstrap
    )
    scenarios = scenario_table(cases, cells, (roles.ours, roles.average), roles.clean, bootstrap=bootstrap)
    claims = claims_table(cases, cells, roles, full_bytes=full_bytes, bootstrap=bootstrap)
    lacking = missing_cells(cases, cells, planned)
    named = {f"{_slug(title)}.png": data for title, data in (pictures or {}).items()}
    shown = dict(zip(pictures or {}, named, strict=True))
    files = {
        "methods.csv": _csv(methods.reset_index()),
        "scenarios.csv": _csv(scenarios.reset_index()),
        "claims.csv": _csv(claims),
        "cells.csv": _csv(cells[CELL_COLUMNS].sort_values(CELL)),
        "README.md": _readme(
            methods, scenarios, claims, lacking, roles, "patient_key" in cases, shown
        ).encode(),
        **named,
    }
    for name, data in files.items():
        write_atomic(folder / name, data)
    return tuple(folder / name for name in files)


def prepare(cases: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Check both frames, keep the honest sites' patients, and name what the bootstrap draws.

    Args:
        cases: as for ``method_table``.
        cells: as for ``method_table``.

    Returns:
        The honest sites' cases with ``unit``, who is drawn, and ``place``, within which: with ``patient_key`` the key
        and the site; without, a patient of one split, and the site under that split. The latter takes the same
        patient under two splits for two, so its intervals are too narrow where splits overlap.

    Raises:
        DataError: as for ``method_table``.
    """
    _require(cases, CASE_COLUMNS, CASE_KEY, "cases")
    _require(cells, CELL_COLUMNS, CELL, "cells")
    if not cases.empty and not pd.api.types.is_bool_dtype(cases["honest"]):
        raise DataError("column honest is not boolean", "cases", "read it as true or false")
    rows = cases.assign(owner=cases["owner"].fillna(""))
    if "patient_key" in rows:
        if (rows["patient_key"].isna() | (rows["patient_key"].astype(str) == "")).any():
            raise DataError(
                "some patients have no key", "cases, column patient_key", "give all a key, or none"
            )
        _require(rows, [], [*CELL, "model", "owner", "patient_key"], "cases, column patient_key")
        rows["unit"], rows["place"] = rows["patient_key"].astype(str), rows["site"].astype(str)
    else:
        rows["place"] = [str(w) for w in zip(rows["split_seed"], rows["site"], strict=True)]
        rows["unit"] = [str(w) for w in zip(rows["place"], rows["patient"], strict=True)]
    return rows[rows["honest"].astype(bool)]


def patients_of(
    rows: pd.DataFrame, method: str, scenario: str, view: View = "main", value: str = "dice"
) -> pd.DataFrame:
    """What each honest site's patient gets from a method.

    Args:
        rows: of ``prepare``.
        method: its name.
        scenario: its name.
        view: the ``global`` model; personal models on their ``own`` site's patients; on ``others``', mean over
            the owners; ``main`` is global, or own where the method has no global model.
        value: the column.

    Returns:
        Index split seed, training seed, unit; columns ``value``, ``site``, ``place``. Empty without cases.
    """
    found = rows[(rows["method"] == method) & (rows["scenario"] == scenario)]
    grouped = found[_in_view(found, view)].groupby([*SEEDS, "unit"])
    parts = {
        "value": grouped[value].mean(),
        "site": grouped["site"].first(),
        "place": grouped["place"].first(),
    }
    return pd.DataFrame(parts)


def estimate(patients: pd.DataFrame, bootstrap: Bootstrap) -> Estimate:
    """Mean over seeds, sites and patients, with its interval.

    Args:
        patients: of ``patients_of`` or ``paired``; drawn within their places, or all together when a unit changes
            its place with the split.
        bootstrap: how the interval is drawn.

    Returns:
        The mean over the defined rows; NaN when there are none.
    """
    defined = patients.dropna(subset=["value"]).reset_index()
    seeds = list(zip(defined["split_seed"], defined["train_seed"], strict=True))
    units, places = defined["unit"].tolist(), defined["place"].tolist()
    stay = len(set(zip(units, places, strict=True))) == len(set(units))
    mean, low, high = paired_bootstrap(
        defined["value"].to_numpy(dtype=np.float64),
        units,
        places if stay else ["all"] * len(units),
        np.random.default_rng(bootstrap.seed),
        nested_weights(seeds, defined["site"].tolist()),
        bootstrap.resamples,
    )
    return Estimate(mean, low, high, len(set(seeds)), len(set(units)), len(patients) - len(defined))


def paired(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """``a − b`` per patient and seed, for all of ``a`` under seeds that ``b`` has too; NaN without a partner."""
    known = set(_seeds_of(b))
    kept = a[np.array([seeds in known for seeds in _seeds_of(a)], dtype=np.bool_)]
    return kept.assign(value=kept["value"] - b["value"].reindex(kept.index))


def _in_view(rows: pd.DataFrame, view: View) -> pd.Series[bool]:
    shared, own = rows["model"] == "global", rows["owner"] == rows["site"]
    if view == "main":
        view = "global" if shared.any() else "own"
    return shared if view == "global" else ~shared & (own if view == "own" else ~own)


def _method_row(
    rows: pd.DataFrame,
    cells: pd.DataFrame,
    method: str,
    reference: str,
    scenario: str,
    full_bytes: float,
    bootstrap: Bootstrap,
) -> dict[str, object]:
    patients = patients_of(rows, method, scenario)
    found = estimate(patients, bootstrap)
    costs = _of_cell(cells, method, scenario)[COSTS].mean()
    structures = {s: _spread(patients_of(rows, method, scenario, value=s), s)[s] for s in STRUCTURES}
    return {
        "judged": _judged(rows, method, scenario),
        **_spread(patients, "dice"),
        "dice_low": found.low,
        "dice_high": found.high,
        **dict(zip(("sd_split", "sd_train"), _between(patients), strict=True)),
        **structures,
        **_difference_to(rows, method, reference, scenario, bootstrap),
        **_spread(patients_of(rows, method, scenario, "own"), "in_client"),
        **_spread(patients_of(rows, method, scenario, "others"), "cross_client"),
        **{name: float(costs[name]) for name in COSTS},
        "ratio": _ratio(full_bytes, costs["upload_bytes"]),
        "seeds": found.seeds,
        "patients": found.patients,
        "undefined": found.left_out,
    }


def _difference_to(
    rows: pd.DataFrame, method: str, reference: str, scenario: str, bootstrap: Bootstrap
) -> dict[str, object]:
    if method == reference:
        return {"difference": math.nan, "low": math.nan, "high": math.nan, "paired_seeds": 0}
    found = _compare(rows, (method, scenario, "main"), (reference, scenario, "main"), bootstrap)
    return {"difference": found.mean, "low": found.low, "high": found.high, "paired_seeds": found.seeds}


def _scenario_row(
    rows: pd.DataFrame,
    cells: pd.DataFrame,
    scenario: str,
    method: str,
    rated: str,
    baseline: str,
    bootstrap: Bootstrap,
) -> dict[str, object]:
    patients = patients_of(rows, method, scenario)
    own = _compare(rows, (method, scenario, "main"), (method, baseline, "main"), bootstrap)
    best = _compare(rows, (method, scenario, "main"), (rated, baseline, "main"), bootstrap)
    itself, same = scenario == baseline, scenario == baseline and method == rated
    nothing = Estimate(math.nan, math.nan, math.nan, 0, 0, 0)
    own, best = nothing if itself else own, nothing if same else best
    costs = _of_cell(cells, method, scenario)
    judged = method == rated and not math.isnan(own.mean)
    return {
        **_spread(patients, "dice"),
        **{"difference": own.mean, "low": own.low, "high": own.high},
        **{"to_rated": best.mean, "to_rated_low": best.low, "to_rated_high": best.high},
        "attacker_weight": float(costs["attacker_weight"].mean()),
        "honest_mean": float(costs["weights_mean"].mean()),
        "honest_min": float(costs["weights_min"].min()),
        "within_1_point": own.mean >= -POINT - _ROUNDING if judged else pd.NA,
        "seeds": len(set(_seeds_of(patients))),
        "patients": patients.index.get_level_values("unit").nunique(),
        "paired_seeds": own.seeds,
        "paired_patients": own.patients,
        "left_out": own.left_out,
    }


def _compare(
    rows: pd.DataFrame, a: tuple[str, str, View], b: tuple[str, str, View], bootstrap: Bootstrap
) -> Estimate:
    """``a − b``, each a method, scenario and view."""
    return estimate(paired(patients_of(rows, *a), patients_of(rows, *b)), bootstrap)


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
    lacking = f"; {_count(unknown, 'seed')} without weights" if unknown else ""
    good = mean >= MEAN_WEIGHT - _ROUNDING and least >= LEAST_WEIGHT - _ROUNDING
    measured = f"mean {mean:.3f}, lowest {least:.2f} (split/training seed {each}{lacking})"
    return Claim(claim, target, measured, _verdict(good and not unknown, not good))


def _scenario_claim(scenarios: pd.DataFrame, roles: Roles, scenario: str, claim: str) -> Claim:
    target = f"{roles.ours} loses at most {100 * POINT:g} point of Dice to its clean federation"
    ours, average = (_row_of(scenarios, scenario, m) for m in (roles.ours, roles.average))
    beside = f"{roles.average} {_estimate_words(average)}"
    if ours is None or math.isnan(ours.mean):
        return Claim(claim, target, f"not run with its clean pair; {beside}", "unclear")
    good = ours.mean >= -POINT - _ROUNDING
    return Claim(claim, target, f"{roles.ours} {_estimate_words(ours)}; {beside}", _verdict(good, not good))


def _reference_claim(
    rows: pd.DataFrame, cells: pd.DataFrame, roles: Roles, full_bytes: float, bootstrap: Bootstrap
) -> Claim:
    claim = f"Adapters alone reach {roles.reference}"
    target = f"interval of the difference ≥ −{MARGIN}, bytes ≤ 1/{BYTES_RATIO:g} of full weights"
    found = _compare(
        rows, (roles.ours, roles.clean, "global"), (roles.reference, roles.clean, "global"), bootstrap
    )
    ratio = _ratio(full_bytes, _of_cell(cells, roles.ours, roles.clean)["upload_bytes"].mean())
    small = ratio >= BYTES_RATIO - _ROUNDING
    words = "bytes unknown" if math.isnan(ratio) else f"bytes 1/{ratio:.0f}"
    met = _verdict(
        small and found.low >= -MARGIN - _ROUNDING, ratio < BYTES_RATIO - _ROUNDING or found.high < -MARGIN
    )
    return Claim(claim, target, f"{_estimate_words(found)}; {words}", met)


def _alone_claims(rows: pd.DataFrame, roles: Roles, local: str, bootstrap: Bootstrap) -> list[Claim]:
    claims = []
    kinds: tuple[tuple[View, str], ...] = (("others", "adapted models"), ("global", "the global model"))
    for view, words in kinds:
        found = _compare(rows, (roles.ours, roles.clean, view), (local, roles.clean, "others"), bootstrap)
        claim = f"On other sites' patients {words} against {local}"
        met = _verdict(found.low > 0, found.high < 0)
        claims.append(Claim(claim, "above, interval excludes zero", _estimate_words(found), met))
    found = _compare(rows, (roles.ours, roles.clean, "own"), (local, roles.clean, "own"), bootstrap)
    met = _verdict(found.high >= 0, found.high < 0)
    claim = f"On own patients adapted models against {local}"
    return [*claims, Claim(claim, "not below, interval reaches zero", _estimate_words(found), met)]


def _verdict(yes: bool, no: bool) -> Verdict:
    return "no" if no else "yes" if yes else "unclear"


def _row_of(scenarios: pd.DataFrame, scenario: str, method: str) -> Estimate | None:
    if (scenario, method) not in scenarios.index:
        return None
    row = scenarios.xs((scenario, method)).to_dict()
    counts = (int(row[name]) for name in ("paired_seeds", "paired_patients", "left_out"))
    return Estimate(float(row["difference"]), float(row["low"]), float(row["high"]), *counts)


def _estimate_words(found: Estimate | None) -> str:
    if found is None or math.isnan(found.mean):
        return "not run"
    bounds = f"{signed(found.low)} to {signed(found.high)}"
    left = f", {found.left_out} rows left out" if found.left_out else ""
    counts = f"{_count(found.seeds, 'seed')}, {_count(found.patients, 'patient')}{left}"
    return f"{signed(found.mean)} (95 % interval {bounds}; {counts})"


def _seed_means(patients: pd.DataFrame) -> pd.Series[float]:
    """Index split seed, training seed: mean over sites of the mean over patients."""
    sites = patients.dropna(subset=["value"]).groupby([*SEEDS, "site"])["value"].mean()
    return sites.groupby(level=SEEDS).mean()


def _ratio(full_bytes: float, uploads: float) -> float:
    return full_bytes / float(uploads) if uploads > 0 else math.nan


def _spread(patients: pd.DataFrame, name: str) -> dict[str, object]:
    mean, sd = mean_sd(_seed_means(patients).tolist())
    return {name: mean, f"{name}_sd": sd}


def _between(patients: pd.DataFrame) -> tuple[float, float]:
    means = _seed_means(patients)
    splits, trainings = (means.index.get_level_values(level).tolist() for level in SEEDS)
    return sd_between(means.tolist(), splits, trainings)


def _seeds_of(patients: pd.DataFrame) -> list[tuple[object, object]]:
    return [(split, training) for split, training, _ in patients.index.tolist()]


def _judged(rows: pd.DataFrame, method: str, scenario: str) -> str:
    models = rows.loc[(rows["method"] == method) & (rows["scenario"] == scenario), "model"]
    return "" if models.empty else "global" if (models == "global").any() else "own"


def _of_cell(cells: pd.DataFrame, method: str, scenario: str) -> pd.DataFrame:
    return cells[(cells["method"] == method) & (cells["scenario"] == scenario)]


def _exists(rows: pd.DataFrame, cells: pd.DataFrame, method: str, scenario: str) -> bool:
    return any(not _of_cell(frame, method, scenario).empty for frame in (rows, cells))


def _names(column: str, *frames: pd.DataFrame) -> list[str]:
    """In order of appearance."""
    return list(dict.fromkeys(str(name) for frame in frames for name in frame[column]))


def _full_grid(cells: set[tuple[object, ...]]) -> list[tuple[object, ...]]:
    seeds = {(scenario, s, t) for _, scenario, s, t in cells}
    kinds = {(method, scenario) for method, scenario, *_ in cells}
    return [(m, c, s, t) for m, c in kinds for scenario, s, t in seeds if scenario == c]


def _require(frame: pd.DataFrame, columns: list[str], key: list[str], name: str) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise DataError(f"no column {', '.join(missing)}", name, "make the table anew from the study's runs")
    double = frame.duplicated(key)
    if double.any():
        first = ", ".join(str(v) for v in frame.loc[double, key].iloc[0])
        raise DataError(
            f"{int(double.sum())} rows are double, the first is {first}", name, "keep one of each"
        )


def _readme(
    methods: pd.DataFrame,
    scenarios: pd.DataFrame,
    claims: pd.DataFrame,
    lacking: pd.DataFrame,
    roles: Roles,
    keyed: bool,
    pictures: Mapping[str, str],
) -> str:
    units = (
        "a patient who is tested under several splits is drawn as one"
        if keyed
        else "a patient who is tested under two splits counts as two, so the intervals are somewhat too narrow"
    )
    parts = [
        "# Results of the study",
        "Dice: mean over seeds of the mean over honest sites of the mean over test patients; ± is the standard "
        "deviation over seeds (pairs of split and training seed). Intervals are 95 %, from a bootstrap over patients "
        f"within sites; {units}. Seeds are not drawn: an interval speaks of other patients at these sites. None is "
        "corrected for the number of comparisons, and with few patients per site they still cover less than 95 %.",
        _provisional(lacking),
        "## Claims",
        _markdown(["claim", "target", "measured", "met"], claims.to_numpy().tolist()),
        f"## Methods, scenario {roles.clean}",
        _method_lines(methods, roles.reference),
        "*own*: a method without a global model, each site's model on its own patients. Bytes are per site and round.",
        "## Scenarios",
        _scenario_lines(scenarios),
        "Honest sites alone. The difference is to the same method's clean federation, on the same patients.",
        *(f"![{title}]({name})" for title, name in pictures.items()),
        *_lacking_lines(lacking),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _provisional(lacking: pd.DataFrame) -> str:
    return (
        ""
        if lacking.empty
        else f"**Provisional: {_count(len(lacking), 'cell')} of the study missing (see the end).**"
    )


def _method_lines(methods: pd.DataFrame, reference: str) -> str:
    head = [
        "method",
        "Dice",
        f"difference to {reference}",
        "own patients",
        "others' patients",
        "up",
        "full / up",
    ]
    lines = []
    for name, row in methods.iterrows():
        other = (
            "reference" if name == reference else _interval_cell(row["difference"], row["low"], row["high"])
        )
        shown = f"{_mean_cell(row, 'dice')}{' *own*' if row['judged'] == 'own' else ''}"
        costs = [_bytes_cell(row["upload_bytes"]), number(row["ratio"], 1), number(row["seconds"], 0)]
        sides = [_mean_cell(row, "in_client"), _mean_cell(row, "cross_client")]
        lines.append([str(name), shown, other, *sides, *costs, str(row["seeds"]), str(row["patients"])])
    return _markdown([*head, "seconds", "seeds", "patients"], lines)


def _scenario_lines(scenarios: pd.DataFrame) -> str:
    head = ["scenario", "method", "Dice", "difference to clean", "within 1 point", "attacker's weight"]
    lines = []
    for (scenario, method), row in zip(scenarios.index, scenarios.to_dict("records"), strict=True):
        within = "" if pd.isna(row["within_1_point"]) else "yes" if row["within_1_point"] else "no"
        lines.append(
            [
                *(str(scenario), str(method), _mean_cell(row, "dice")),
                _interval_cell(row["difference"], row["low"], row["high"]),
                *(within, number(row["attacker_weight"], 2), number(row["honest_min"], 2)),
                *(str(row[c]) for c in ("seeds", "patients", "paired_seeds", "paired_patients")),
            ]
        )
    counts = ["seeds", "patients", "seeds paired", "patients paired"]
    return _markdown([*head, "lowest honest weight", *counts], lines)


def _lacking_lines(lacking: pd.DataFrame) -> list[str]:
    if lacking.empty:
        return []
    grouped = lacking.groupby(["method", "scenario", "lacks"], sort=True)
    lines = []
    for (method, scenario, lacks), rows in grouped:
        seeds = zip(rows["split_seed"], rows["train_seed"], strict=True)
        lines.append([str(method), str(scenario), str(lacks), ", ".join(f"{s}/{t}" for s, t in seeds)])
    return ["## Missing", _markdown(["method", "scenario", "lacks", "split/training seeds"], lines)]


def _mean_cell(row: Mapping[Any, Any] | pd.Series[Any], name: str) -> str:
    mean, sd = float(row[name]), float(row[f"{name}_sd"])
    return number(mean, 3) if math.isnan(sd) else f"{number(mean, 3)} ± {number(sd, 3)}"


def _interval_cell(mean: float, low: float, high: float) -> str:
    return "n/a" if math.isnan(mean) else f"{signed(mean)} ({signed(low)} to {signed(high)})"


def _bytes_cell(n_bytes: float) -> str:
    if math.isnan(n_bytes):
        return "n/a"
    return size(n_bytes) if n_bytes else "none"


def _markdown(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)


def _csv(frame: pd.DataFrame) -> bytes:
    floats = frame.select_dtypes("float").columns
    return (
        frame.assign(**{c: frame[c].round(6) for c in floats})
        .to_csv(index=False, lineterminator="\n")
        .encode()
    )


def _slug(title: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
