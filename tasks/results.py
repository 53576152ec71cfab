"""The run's numbers for machines: metrics and plot tables as DVC shows them, and the result as markdown."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tasks import plots
from tasks.clinical.agree import agreement_metrics, patient_table
from tasks.files import json_bytes, write_atomic
from tasks.history import read_history, validation_dice
from tasks.summary import metrics, model_table, read_cases, site_matrices, site_matrix


def write_results(root: Path) -> None:
    """Write ``metrics.json``, and tables and pictures under ``plots/``, of a run.

    Args:
        root: the run's folder; without a test evaluation in it, ``models`` and ``matrix`` are not written.

    Raises:
        DataError: the evaluation's table is malformed.
        DiskError: a file could not be written.
    """
    history = read_history(root / "federation" / "rounds")
    cases = read_cases(root / "evaluation" / "cases.csv")
    numbers = metrics(cases, history)
    if cases is not None and not cases.empty:
        numbers |= agreement_metrics(patient_table(cases))
    write_atomic(root / "metrics.json", json_bytes(numbers))
    learning = [
        {"round": number, "site": site, "dice": dice}
        for site, curve in validation_dice(history).items()
        for number, dice in curve.items()
    ]
    _write_table(root / "plots" / "learning.csv", pd.DataFrame(learning, columns=["round", "site", "dice"]))
    write_atomic(root / "plots" / "learning.png", plots.learning_curves(history))
    write_atomic(root / "plots" / "weights.png", plots.weights_and_gains(history))
    write_atomic(root / "plots" / "bytes.png", plots.bytes_sent(history))
    if cases is not None:
        matrices = site_matrices(cases)
        if matrices:
            write_atomic(root / "plots" / "matrix.png", plots.site_heatmap(matrices))
        _write_table(root / "plots" / "models.csv", model_table(cases).reset_index())
        matrix = site_matrix(cases, "personal").rename_axis(index="owner").reset_index()
        _write_table(root / "plots" / "matrix.csv", matrix.melt("owner", var_name="site", value_name="dice"))


def result_markdown(root: Path) -> str:
    """The table of models for the Prefect UI."""
    cases = read_cases(root / "evaluation" / "cases.csv")
    if cases is None:
        return "No test evaluation yet."
    table = model_table(cases).reset_index()
    head = " | ".join(str(c) for c in table.columns)
    rule = " | ".join("---" for _ in table.columns)
    rows = [" | ".join(_cell(v) for v in row) for row in table.itertuples(index=False)]
    return "\n".join(f"| {line} |" for line in (head, rule, *rows))


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _write_table(path: Path, table: pd.DataFrame) -> None:
    write_atomic(path, table.to_csv(index=False, float_format="%.6g").encode())
