"""Several runs that differ in their seed, as tables for people: means, spread, and paired intervals per seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from model.errors import ConfigError, DataError
from tasks.findings import MODEL_WORDS, compare, interval_words, signed
from tasks.history import read_history
from tasks.summary import View, bytes_ratio, gain_table, model_table, read_cases
from tasks.workspace import open_workspace

COLUMNS = {
    "in_client": "own patients",
    "cross_client": "other sites'",
    "RV": "RV",
    "MYO": "MYO",
    "LV": "LV",
    "hd95_mm": "HD95, mm",
}
CLAIMS: tuple[tuple[str, str, View, str], ...] = (
    ("global", "zero-shot", "all", "global − base, all patients"),
    ("global", "local", "cross", "global − trained alone, other sites' patients"),
    ("personal", "local", "in", "adapted − trained alone, own patients"),
    ("global", "fedavg", "all", "global − full-weight FedAvg, all patients"),
)


def seed_tables(roots: Sequence[Path]) -> str:
    """Markdown tables over finished runs.

    Args:
        roots: folders of runs, one per seed.

    Returns:
        Test Dice per model (mean ± standard deviation over seeds), per site base against global, and the paired
        differences of every seed with their bootstrap intervals.

    Raises:
        ConfigError: a folder holds no run, two runs share a seed, or they differ in more than the seed.
        DataError: a run has no test evaluation.
    """
    _require_comparable(roots)
    tables = {open_workspace(root).params.seed: _cases(root) for root in roots}
    ratios = [bytes_ratio(read_history(root / "federation" / "rounds")) for root in roots]
    known = [r for r in ratios if r is not None]
    bytes_line = (
        f"Bytes uploaded per site and round: 1/{sum(known) / len(known):.0f} of full weights."
        if known
        else ""
    )
    seeds = ", ".join(str(seed) for seed in sorted(tables))
    return "\n\n".join(
        [
            f"Test Dice, mean ± standard deviation over seeds {seeds}.",
            _model_lines(tables),
            "Per site, base → global.",
            _site_lines(tables),
            "Paired differences in Dice with 95 % bootstrap intervals over test patients.",
            _claim_lines(tables),
            bytes_line,
        ]
    ).strip()


def _require_comparable(roots: Sequence[Path]) -> None:
    settings = [open_workspace(root).params for root in roots]
    seeds = [params.seed for params in settings]
    if (
        len(set(seeds)) < len(seeds)
        or len({params.model_copy(update={"seed": 0}).model_dump_json() for params in settings}) > 1
    ):
        raise ConfigError(
            f"runs with seeds {seeds} do not differ in their seed alone",
            ", ".join(map(str, roots)),
            "name runs of the same settings, one per seed",
        )


def _cases(root: Path) -> pd.DataFrame:
    cases = read_cases(root / "evaluation" / "cases.csv")
    if cases is None:
        raise DataError("the run has no test evaluation", str(root), "run it to its end")
    return cases


def _model_lines(tables: dict[int, pd.DataFrame]) -> str:
    stacked = pd.concat({seed: model_table(cases) for seed, cases in tables.items()}, names=["seed"])
    models = [m for m in MODEL_WORDS if m in stacked.index.get_level_values("model")]
    rows = []
    for model in models:
        values = stacked.xs(model, level="model")
        cells = [_spread(values[column], 1 if column == "hd95_mm" else 3) for column in COLUMNS]
        undefined = f"{values['undefined_dice'].sum():.0f} / {values['undefined_hd95'].sum():.0f}"
        rows.append([MODEL_WORDS[model], *cells, undefined])
    return _table(["model", *COLUMNS.values(), "undefined Dice / HD95"], rows)


def _site_lines(tables: dict[int, pd.DataFrame]) -> str:
    stacked = pd.concat({seed: gain_table(cases) for seed, cases in tables.items()}, names=["seed"])
    rows = []
    for site, values in stacked.groupby(level="site"):
        better = int((values["gain"] > 0).sum())
        cells = [_spread(values["zero_shot"], 3), _spread(values["global"], 3), f"{better} of {len(values)}"]
        rows.append([str(site), *cells])
    return _table(["site", "base", "global", "seeds in which global is better"], rows)


def _claim_lines(tables: dict[int, pd.DataFrame]) -> str:
    seeds = sorted(tables)
    rows = []
    for a, b, view, words in CLAIMS:
        found = [compare(tables[seed], a, b, view, seed) for seed in seeds]
        cells = ["n/a" if i is None else interval_words(i) for i in found]
        known = [i.difference for i in found if i is not None]
        rows.append([words, signed(sum(known) / len(known)) if known else "n/a", *cells])
    return _table(["difference", "mean", *(f"seed {seed}" for seed in seeds)], rows)


def _spread(values: pd.Series[float], decimals: int) -> str:
    sd = values.std(ddof=1) if len(values) > 1 else float("nan")
    return (
        f"{values.mean():.{decimals}f} ± {sd:.{decimals}f}"
        if len(values) > 1
        else f"{values.mean():.{decimals}f}"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
