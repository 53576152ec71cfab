"""Whether a round's model may be released: it beside the one in use, and what the gate found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.errors import ReleaseRefusedError, RoundError
from tasks.enrol import prepared_sites
from tasks.release.channel import Assignment, read_card
from tasks.release.evidence import Evidence, evidence_here, evidence_told
from tasks.release.judge import judge_cells, undecided_findings, worse_findings
from tasks.release.markdown import finding_words
from tasks.release.records import AS_SHIPPED, Finding, Model
from tasks.release.validate import model_of, round_records
from tasks.workspace import Workspace

NAMED = 5
"""Strata that a refusal spells out."""


@dataclass(frozen=True)
class Decision:
    """What the gate found.

    Attributes:
        candidate: the round's model.
        compared: name and model of what it was compared with.
        findings: a row per stratum, structure and metric.
        evidence: what they rest on.
    """

    candidate: Model
    compared: tuple[str, Model]
    findings: tuple[Finding, ...]
    evidence: Evidence


def decide(ws: Workspace, number: int, current: Assignment | None, cohort: Path) -> Decision:
    """Compare a round's model with the one in the channel, or with the base as shipped; changes nothing.

    Args:
        ws: the run or the hub.
        number: of the round.
        current: the entry in force, None before the first release.
        cohort: parent of the prepared sites; where none is, as at a hub, the hospitals' evaluations of the round count.

    Returns:
        Both models and the findings.

    Raises:
        RoundError: the round has no model, or too little is known of any patients to decide anything.
    """
    plan, close = round_records(ws, number)
    candidate = model_of(plan.base, close.steps)
    compared = (AS_SHIPPED, model_of(plan.base, ()))
    if current:
        compared = (current.fact.release, read_card(ws.versions, current.fact.release)[0].model)
    here = bool(prepared_sites(cohort))
    evidence = (
        evidence_here(ws, cohort, candidate, compared[1])
        if here
        else evidence_told(ws, plan, candidate, compared[1])
    )
    findings = judge_cells(evidence.cells, evidence.strata)
    if len(undecided_findings(findings)) == len(findings):
        said = "; ".join(f"{silent.site}: {silent.reason}" for silent in evidence.silent)
        what = f"of too few patients is anything known to decide whether round {number} does harm"
        mend = "name a prepared cohort with --cohort; see docs/operations.md, Releasing a model"
        raise RoundError(what, said or str(cohort), mend)
    return Decision(candidate, compared, findings, evidence)


def refuse_worse(decision: Decision, number: int) -> None:
    """Stop where a stratum is worse.

    Args:
        decision: what the gate found.
        number: of the round.

    Raises:
        ReleaseRefusedError: names such strata with their numbers, the first few in full.
    """
    worse = worse_findings(decision.findings)
    if not worse:
        return
    said = "; ".join(finding_words(finding) for finding in worse[:NAMED])
    more = f"; and {len(worse) - NAMED} more" if len(worse) > NAMED else ""
    raise ReleaseRefusedError(
        f"round {number} is worse than {decision.compared[0]} in {len(worse)} of {len(decision.findings)} comparisons",
        f"{said}{more}",
        "nothing was changed; release another round, or find out what these patients have in common",
    )
