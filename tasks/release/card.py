"""The model card: what a model is, what it was compared with, how it did on the test, and what it is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pandas as pd

from model.labels import STRUCTURES
from tasks.clinical.agree import FEWEST, QUANTITIES, agreement_of, patient_table
from tasks.clinical.strata import cell_of
from tasks.code_version import code_version
from tasks.models import last_close
from tasks.records import Close, Plan
from tasks.release.decide import Decision
from tasks.release.judge import undecided_findings
from tasks.release.records import Card, Measured
from tasks.summary import read_cases
from tasks.workspace import Workspace

INTENDED_USE = (
    "Research: outlines of the left and right ventricular cavity and the left ventricular myocardium on short-axis "
    "cine MRI at end-diastole and end-systole, and the volumes, EF and mass that follow from them, for review by a "
    "qualified reader. Not a medical device; not cleared for diagnosis or treatment by any authority."
)
ALWAYS = (
    "Trained and judged on short-axis cine only: other sequences and views, congenital or operated hearts are not "
    "covered.",
    "The gate compares on the sites' validation patients. Rounds were accepted on slices of the same patients, so "
    "absolute numbers there are somewhat favourable; the difference between two models is affected less.",
    "The gate makes many comparisons without correction: by chance alone about one in forty refuses a model that "
    "is no worse.",
)


def make_card(
    ws: Workspace,
    records: tuple[Plan, Close],
    decision: Decision,
    release: str,
    approved_by: str,
    made: datetime,
) -> Card:
    """Put the card together from what lies in the run's folder.

    Args:
        ws: the run.
        records: plan and close of the round.
        decision: its model, what it was compared with, and what the gate found.
        release: the version it gets.
        approved_by: who takes responsibility.
        made: when.

    Returns:
        The card; without test numbers where the test was opened for another round's model.
    """
    plan, close = records
    test, findings = tuple(_test_numbers(ws, close)), decision.findings
    return Card(
        release=release,
        round=close.round,
        model=decision.candidate,
        approved_by=approved_by,
        made=made,
        intended_use=INTENDED_USE,
        limits=tuple(_limits(decision, close, bool(test))),
        members=plan.members,
        data=decision.evidence.data,
        silent=decision.evidence.silent,
        degraded=close.degraded,
        compared_with=decision.compared[0],
        compared_sha256=decision.compared[1].sha256,
        fewest=FEWEST,
        findings=findings,
        test=test,
        code_version=code_version(),
    )


def _limits(decision: Decision, close: Close, tested: bool) -> Iterator[str]:
    yield from ALWAYS
    places = sorted({finding.place for finding in undecided_findings(decision.findings)})
    if places:
        yield f"Not judged, fewer than {FEWEST} validation patients known: {'; '.join(places)}."
    for silent in decision.evidence.silent:
        yield f"Nothing is known of the patients of {silent.site}: {silent.reason}."
    if close.degraded:
        yield f"Its round closed without {', '.join(close.missing)}."
    if not tested:
        yield "The test set was not opened for this model: how it does on unseen patients is not known."


def _test_numbers(ws: Workspace, close: Close) -> Iterator[Measured]:
    """The global model's, if the test was opened after this very round."""
    cases = _tested_cases(ws, close)
    if cases is None:
        return
    for structure in STRUCTURES:
        rows = cases[cases["structure"] == structure]
        for metric in ("dice", "hd95_mm"):
            cell = cell_of(rows, metric, ws.params.seed)
            yield Measured(name=f"{structure} {metric}", value=_or_none(cell.mean), n=cell.patients)
    patients = patient_table(cases)
    for quantity in QUANTITIES:
        found, _ = agreement_of(patients, "global", quantity)
        yield Measured(name=f"{quantity.key} bias", value=_or_none(found.bias.value), n=found.n)
        yield Measured(name=f"{quantity.key} mean absolute error", value=_or_none(found.mae), n=found.n)


def _tested_cases(ws: Workspace, close: Close) -> pd.DataFrame | None:
    if close.round != ws.params.federation.rounds or last_close(ws) != close:
        return None
    cases = read_cases(ws.evaluation / "cases.csv")
    own = None if cases is None else cases[cases["model"] == "global"]
    return None if own is None or own.empty else own


def _or_none(value: float) -> float | None:
    return None if pd.isna(value) else round(float(value), 6)
