"""The final evaluation: every model on every site's test cases, in the original image space, once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from tasks.adapt import predictor
from tasks.cases import CaseRow
from tasks.clinical.write import write_clinical
from tasks.code_version import code_version
from tasks.evaluate import Predict, Segmentation, evaluate_cases, load_cases, segment_case
from tasks.events import log_event
from tasks.files import sha256_bytes, write_atomic
from tasks.models import last_close, trained_models
from tasks.overlays import render_overlays
from tasks.records import FederationRecord
from tasks.workspace import Workspace

COLUMNS = ["model", "owner", "site"]


def evaluate_test_cases(ws: Workspace, federation: FederationRecord, site: str) -> Path:
    """All models on one site's test cases; overlays of the global model go to ``evaluation/overlays``.

    Args:
        ws: the run, its last round closed.
        federation: the base, and the members whose models are compared.
        site: whose test cases.

    Returns:
        The site's table: a row per model, owner, patient, phase and structure (:func:`evaluate_cases`).
    """
    mark = sha256_bytes(
        f"{last_close(ws).model_dump_json()}/{federation.model_dump_json()}/{code_version()}".encode()
    )[:16]
    done = ws.evaluation / "sites" / f"{site}-{mark}.csv"
    if done.exists():
        log_event(ws.site_home(site), "evaluate", None, "reused")
        return done
    cases = load_cases(ws.data_home(site), "test")
    tables = []
    for model in trained_models(ws, federation):
        predict = predictor(federation.base.architecture, model.weights)
        table = evaluate_cases(predict, cases)
        tables.append(table.assign(model=model.name, owner=model.owner, site=site))
        if model.name == "global" and cases:
            rows = {(case.row.patient, case.row.phase): case.row for case in cases}
            folder = ws.evaluation / "overlays" / site
            render_overlays(table, partial(_segment, predict, rows), folder)
    table = pd.concat(tables, ignore_index=True)
    table = table[COLUMNS + [c for c in table.columns if c not in COLUMNS]]
    write_atomic(done, table.to_csv(index=False, float_format="%.6g").encode())
    log_event(ws.site_home(site), "evaluate", None, "done")
    return done


def _segment(predict: Predict, rows: dict[tuple[str, str], CaseRow], line: pd.Series) -> Segmentation:
    return segment_case(predict, rows[str(line["patient"]), str(line["phase"])])


def gather_tables(ws: Workspace, files: list[Path]) -> Path:
    """One table of all sites' rows, ``evaluation/cases.csv``, and what it says clinically; for runs on one machine."""
    tables = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in sorted(files)]
    out = ws.evaluation / "cases.csv"
    write_atomic(out, pd.concat(tables, ignore_index=True).to_csv(index=False).encode())
    write_clinical(out, ws.params.seed)
    return out
