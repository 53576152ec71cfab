"""Numbers of the study in words and in the cells of its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from tasks.findings import number, signed, size
from tasks.study_report.estimates import Estimate


def estimate_words(found: Estimate | None) -> str:
    """Mean, interval and counts; "not run" without a mean."""
    if found is None or math.isnan(found.mean):
        return "not run"
    bounds = f"{signed(found.low)} to {signed(found.high)}"
    left = f", {found.left_out} rows left out" if found.left_out else ""
    counts = f"{counted(found.seeds, 'seed')}, {counted(found.patients, 'patient')}{left}"
    return f"{signed(found.mean)} (95 % interval {bounds}; {counts})"


def counted(n: int, noun: str) -> str:
    """Such as ``1 seed`` and ``2 seeds``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def mean_cell(row: Mapping[Any, Any] | pd.Series[Any], name: str) -> str:
    """``mean ± sd`` of a row's columns ``name`` and ``name_sd``; without sd the mean alone."""
    mean, sd = float(row[name]), float(row[f"{name}_sd"])
    return number(mean, 3) if math.isnan(sd) else f"{number(mean, 3)} ± {number(sd, 3)}"


def interval_cell(mean: float, low: float, high: float) -> str:
    """``mean (low to high)``, signed; "n/a" when undefined."""
    return "n/a" if math.isnan(mean) else f"{signed(mean)} ({signed(low)} to {signed(high)})"


def bytes_cell(n_bytes: float) -> str:
    """A size; "none" for zero, "n/a" when unknown."""
    if math.isnan(n_bytes):
        return "n/a"
    return size(n_bytes) if n_bytes else "none"


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """A table; bars in its cells become slashes."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
