"""The model card for people."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.release.judge import undecided_findings
from tasks.release.paired import EF_BIAS, EF_ERROR
from tasks.release.records import Card, Finding, Measured

_METRICS = {"dice": "Dice", "hd95_mm": "HD95, mm", EF_BIAS: "EF bias, %", EF_ERROR: "EF error, %"}
_DECIMALS = {"dice": 3, "hd95_mm": 1, EF_BIAS: 1, EF_ERROR: 1}


def card_markdown(card: Card) -> str:
    """The whole card as one page of markdown."""
    model = card.model
    steps = ", ".join(f"{step.fraction:g} × round {step.round} (`{step.sha256}`)" for step in model.steps)
    parts = [
        f"# cardiofed {card.release}",
        f"Round {card.round}. Approved for the clinical channel by {_plain(card.approved_by)}, "
        f"{card.made:%Y-%m-%d %H:%M} UTC. Compared with: {card.compared_with}.",
        f"## Intended use\n\n{card.intended_use}",
        "## Limits\n\n" + "\n".join(f"- {_plain(limit)}" for limit in card.limits),
        f"## Gate\n\n{_gate_words(card)}\n\n{findings_table(card.findings)}",
        f"## Test\n\n{_test_words(card.test)}",
        f"## Data\n\n{_data_table(card)}",
        f"## Hashes\n\n- model `{model.sha256}`\n- base `{model.base.sha256}`, {_plain(model.base.source)}\n"
        f"- steps: {steps or 'none'}\n- compared with model `{card.compared_sha256}`\n- code {card.code_version}",
    ]
    return "\n\n".join(parts) + "\n"


def findings_table(findings: Sequence[Finding]) -> str:
    """A row per stratum, structure and metric."""
    heads = [
        "stratum",
        "metric",
        "patients",
        "released",
        "this model",
        "difference, 95 % interval",
        "verdict",
    ]
    rows = [
        [
            finding.place,
            _METRICS[finding.metric],
            f"{finding.patients}" + (f" ({finding.left_out} undefined)" if finding.left_out else ""),
            number_words(finding.released, finding.metric),
            number_words(finding.candidate, finding.metric),
            difference_words(finding),
            f"**{finding.verdict}**" if finding.verdict == "worse" else finding.verdict,
        ]
        for finding in findings
    ]
    return _table(heads, rows)


def difference_words(finding: Finding) -> str:
    """Such as ``−0.021 [−0.035, −0.008]``; without an interval the number of patients."""
    decimals = _DECIMALS[finding.metric]
    if finding.difference is None:
        return "n/a"
    said = _signed(finding.difference, decimals)
    if finding.low is None or finding.high is None:
        return f"{said}, n = {finding.patients}"
    return f"{said} [{_signed(finding.low, decimals)}, {_signed(finding.high, decimals)}]"


def finding_words(finding: Finding) -> str:
    """Such as ``group HCM, RV: Dice −0.021 [−0.035, −0.008] over 8 patients, 0.802 instead of 0.823``."""
    now, before = (number_words(v, finding.metric) for v in (finding.candidate, finding.released))
    what = f"{_METRICS[finding.metric]} {difference_words(finding)}"
    return f"{finding.place}: {what} over {finding.patients} patients, {now} instead of {before}"


def number_words(value: float | None, metric: str) -> str:
    """With the decimals of its metric; "n/a" when undefined."""
    return "n/a" if value is None else f"{value:.{_DECIMALS[metric]}f}"


def _gate_words(card: Card) -> str:
    few = len(undecided_findings(card.findings))
    return (
        f"{len(card.findings)} comparisons on validation patients, paired; {few} of them not decidable (fewer than "
        f"{card.fewest} patients), which did not stop the release. EF bias: size of the mean "
        "error; EF error: mean size of the error."
    )


def _test_words(test: Sequence[Measured]) -> str:
    if not test:
        return "Not opened for this model."
    rows = [[t.name, "n/a" if t.value is None else f"{t.value:.3f}", str(t.n)] for t in test]
    return "Test patients, after the last round, once.\n\n" + _table(["number", "value", "n"], rows)


def _data_table(card: Card) -> str:
    told = {site.site: site for site in card.data}
    rows = []
    for member in card.members:
        site = told.get(member.site)
        patients = (
            ", ".join(f"{split} {n}" for split, n in site.patients.items()) if site else "not told here"
        )
        groups = ", ".join(f"{group} {n}" for group, n in site.groups.items()) if site else "not told here"
        rows.append([member.site, str(member.train_slices), patients, groups, f"`{member.dataset_md5}`"])
    return _table(["site", "training slices", "patients", "groups", "data"], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}".replace("-", "−")
