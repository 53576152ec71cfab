"""The result in words, computed from the numbers and honest about them: what is unclear is called unclear."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tasks.history import RoundHistory, full_bytes, round_status, sites_of, validation_dice
from tasks.summary import Interval, View, bytes_ratio, download_bytes, model_table, paired_interval

MODEL_WORDS = {
    "zero-shot": "Base as shipped (zero-shot)",
    "global": "Global model",
    "personal": "Global model, adapted at the site",
    "local": "Trained alone at the site",
    "fedavg": "Full-weight FedAvg",
}
Means = dict[str, dict[str, float]]
"""Model → column of ``summary.model_table`` → value."""
VERDICTS = {"better": "better than", "worse": "worse than", "unclear": "not distinguishable from"}


def result_sentences(cases: pd.DataFrame | None, history: Sequence[RoundHistory]) -> list[str]:
    """The result in three sentences, whatever it is."""
    if cases is None or cases.empty:
        unknown = "There is no test evaluation yet: how good the models are on unseen patients is not known."
        return [unknown, _validation_sentence(history), bytes_sentence(history)]
    table, seed = means_of_models(cases), seed_of(history)
    return [
        _base_sentence(cases, table, history, seed),
        _alone_sentence(cases, table, seed),
        f"{_fedavg_part(cases, table, seed)}; {_decapitalised(bytes_sentence(history))}",
    ]


def bytes_sentence(history: Sequence[RoundHistory]) -> str:
    """What a site uploads and downloads, beside the full weights."""
    ratio, down, full = bytes_ratio(history), download_bytes(history), full_bytes(history)
    if ratio is None or full is None:
        return "No site has uploaded anything yet."
    mean = size(full / ratio)
    said = f"A site uploads {mean} per round where full weights are {size(full)}, {ratio:.0f} times as much"
    return f"{said}; it downloads {size(down)}, others' updates and the merged step." if down else f"{said}."


def means_of_models(cases: pd.DataFrame) -> Means:
    """``summary.model_table`` as plain numbers, in its order."""
    table = model_table(cases)
    return {str(model): {str(k): float(v) for k, v in row.items()} for model, row in table.iterrows()}


def compare(cases: pd.DataFrame, a: str, b: str, view: View, seed: int) -> Interval | None:
    """Interval of ``Dice(a) − Dice(b)``, the same for the same seed; None when a model was not evaluated."""
    if not {a, b} <= set(cases["model"]):
        return None
    interval = paired_interval(cases, a, b, np.random.default_rng(seed), view)
    return None if math.isnan(interval.difference) else interval


def seed_of(history: Sequence[RoundHistory]) -> int:
    """The run's own seed; 0 before the first plan."""
    return next((entry.plan.params.seed for entry in history if entry.plan), 0)


def dice(value: float | None) -> str:
    """Three decimals; "n/a" when undefined."""
    return number(value, 3)


def signed(value: float | None) -> str:
    """Three decimals with a sign; "n/a" when undefined."""
    if value is None or math.isnan(value):
        return "n/a"
    return f"{value:+.3f}".replace("-", "−")


def number(value: float | None, decimals: int) -> str:
    """Fixed decimals; "n/a" when undefined."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.{decimals}f}"


def size(n_bytes: float) -> str:
    """Decimal kB or MB, as network engineers count."""
    if n_bytes >= 999_500:
        return f"{n_bytes / 1e6:.2f} MB"
    return f"{n_bytes / 1e3:.1f} kB" if n_bytes < 99_950 else f"{n_bytes / 1e3:.0f} kB"


def interval_words(interval: Interval) -> str:
    """Such as ``+0.031, 95 % interval +0.012 to +0.050``."""
    bounds = f"{signed(interval.low)} to {signed(interval.high)}"
    return f"{signed(interval.difference)}, 95\u00a0%\u00a0interval {bounds}"


def _flaws(history: Sequence[RoundHistory]) -> str:
    flawed = sum(not round_status(entry).good for entry in history)
    return f" ({flawed} of them not as planned)" if flawed else ""


def _base_sentence(cases: pd.DataFrame, table: Means, history: Sequence[RoundHistory], seed: int) -> str:
    if "global" not in table:
        return "The global model was not evaluated."
    rounds, sites = len([e for e in history if e.close]), len(sites_of(history)) or cases["site"].nunique()
    row = table["global"]
    start = (
        f"After {_count(rounds, 'round')}{_flaws(history)} among {_count(sites, 'site')}, "
        f"the global model reaches a mean test Dice of {dice(row['dice'])} ({_count(int(row['patients']), 'patient')})"
    )
    found = compare(cases, "global", "zero-shot", "all", seed)
    if found is None:
        return f"{start}; the base as shipped was not evaluated, so what training added is not known."
    shipped = dice(table["zero-shot"]["dice"])
    words = VERDICTS[found.verdict]
    return f"{start}, {words} the base as shipped with {shipped} ({interval_words(found)})."


def _alone_sentence(cases: pd.DataFrame, table: Means, seed: int) -> str:
    own = compare(cases, "personal", "local", "in", seed)
    others = compare(cases, "global", "local", "cross", seed)
    if own is None and others is None:
        return "No site's own training without the federation was evaluated, so what joining brings is not known."
    parts = []
    if own:
        models = f"the adapted global model ({dice(table['personal']['in_client'])})"
        alone = f"training alone ({dice(table['local']['in_client'])})"
        parts.append(
            f"on a site's own patients {models} is {VERDICTS[own.verdict]} {alone}: {interval_words(own)}"
        )
    if others:
        models = f"the global model ({dice(table['global']['cross_client'])})"
        alone = f"a model trained alone elsewhere ({dice(table['local']['cross_client'])})"
        parts.append(
            f"on patients of other sites {models} is {VERDICTS[others.verdict]} {alone}: {interval_words(others)}"
        )
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _fedavg_part(cases: pd.DataFrame, table: Means, seed: int) -> str:
    found = compare(cases, "global", "fedavg", "all", seed)
    if found is None:
        return "Full-weight FedAvg was not evaluated"
    full = dice(table["fedavg"]["dice"])
    return f"The global model is {VERDICTS[found.verdict]} full-weight FedAvg with {full} ({interval_words(found)})"


def _validation_sentence(history: Sequence[RoundHistory]) -> str:
    curves = list(validation_dice(history).values())
    common = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    if len(common) < 2:
        return "No merged step has been judged by the sites yet."
    first, last = (float(np.mean([curve[x] for curve in curves])) for x in (common[0], common[-1]))
    since = "before the first" if common[0] == 0 else f"after {_count(common[0], 'round')}"
    return (
        f"On the sites' own validation slices the global model stands at {dice(last)} Dice after "
        f"{_count(common[-1], 'round')}, from {dice(first)} {since}."
    )


def _decapitalised(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
