"""The report of a run: one self-contained page from what lies in its folder, with no server and no clock."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.markup import escape as escape_rich
from rich.table import Table

from tasks import plots
from tasks.clinical.section import clinical_section
from tasks.data_card import federation_card
from tasks.enrol import prepared_sites, read_card
from tasks.files import write_atomic
from tasks.findings import (
    MODEL_WORDS,
    bytes_sentence,
    compare,
    dice,
    means_of_models,
    number,
    result_sentences,
    seed_of,
    signed,
    size,
)
from tasks.history import (
    RoundHistory,
    full_bytes,
    read_history,
    round_status,
    sites_of,
    traffic,
    validation_dice,
)
from tasks.overlays import RANKS
from tasks.records import Aspect, MergeRecord, Receipt, Seen, model_sha256
from tasks.summary import Interval, gain_table, read_cases, site_matrices

TEMPLATES = Path(__file__).parent / "templates"
COLUMNS = 6
"""Raters that stand side by side; more are listed."""
ARTIFACT_DPI = 80
"""Prefect keeps the picture in its database, so it is small."""


@dataclass(frozen=True)
class ModelRow:
    """One line of the main table: a model, its means, and its distance from the base.

    Attributes:
        name: in words.
        means: a row of ``summary.model_table``.
        in_client: against the base on own test cases; None where there is nothing to compare.
        cross_client: the same on the others' test cases.
    """

    name: str
    means: Mapping[str, float]
    in_client: Interval | None
    cross_client: Interval | None


def render_report(root: Path, out: Path, images: bool, tested: bool = True) -> Path:
    """Write the report of a run.

    Args:
        root: the run's folder.
        out: the HTML file.
        images: also show the overlays in ``evaluation/overlays``; such a page must stay where it was made.
        tested: show the test evaluation; a page made between rounds must not.

    Returns:
        ``out``. The same folder gives the same bytes.

    Raises:
        PackageError: a published record is malformed.
        DataError: a case table or a card is malformed.
        DiskError: the page could not be written.
    """
    history = read_history(root / "federation" / "rounds")
    cases = read_cases(root / "evaluation" / "cases.csv") if tested else None
    if cases is not None and cases.empty:
        cases = None
    cards = [read_card(root / "cohort" / site) for site in prepared_sites(root / "cohort")]
    template = _environment().get_template("report.html.j2")
    page = template.render(
        run=root.resolve().name,
        overlays=_overlays(root) if images else {},
        cards=cards,
        all_sites=federation_card(cards),
        **_of_rounds(history),
        **_of_cases(cases, history),
        **clinical_section(cases, seed_of(history), MODEL_WORDS),
    )
    write_atomic(out, page.encode())
    return out


def round_markdown(history: Sequence[RoundHistory]) -> str:
    """Status, last receipts and learning curves as markdown, for a Prefect artifact."""
    rows = [[str(e.number), round_status(e).label, round_status(e).detail] for e in history]
    parts = ["## Rounds", _markdown_table(["round", "status", "detail"], rows) if rows else "No round yet."]
    merged = [(entry.number, entry.merge) for entry in history if entry.merge]
    if merged:
        number_, merge = merged[-1]
        parts += [f"## Receipts of round {number_}", _receipt_table(merge)]
        if raters_of(merge):
            parts += ["## What the raters saw, Dice gained with its 95 % interval", _seen_table(merge)]
    if history:
        parts += [
            "## Learning curves",
            f"![learning curves]({_data_uri(plots.learning_curves(history, ARTIFACT_DPI))})",
        ]
    return "\n\n".join([*parts, bytes_sentence(history)]) + "\n"


def result_table(cases: pd.DataFrame | None, history: Sequence[RoundHistory]) -> Table:
    """The result as a short table for a terminal; without an evaluation, the validation Dice by site."""
    if cases is None or cases.empty:
        table = Table("site", "validation Dice before", "now", title="No test evaluation yet")
        for site, curve in validation_dice(history).items():
            values = list(curve.values())
            table.add_row(escape_rich(site), dice(values[0]), dice(values[-1]))
        return table
    table = Table("model", "own patients", "other sites'", "HD95, mm", "undefined", title="Mean test Dice")
    for model, row in means_of_models(cases).items():
        means = [dice(row["in_client"]), dice(row["cross_client"]), number(row["hd95_mm"], 1)]
        words = escape_rich(MODEL_WORDS.get(model, model))
        table.add_row(words, *means, f"{row['undefined_dice']:.0f} of {row['cases']:.0f}")
    return table


def raters_of(merge: MergeRecord) -> list[str]:
    """Sites whose ratings the receipts hold, by name."""
    return sorted({rater for receipt in merge.receipts for rater in receipt.seen})


def shown_aspects(receipt: Receipt) -> list[Aspect]:
    """The mean, and the structure that decided where one cost weight."""
    decided = receipt.penalty > 0 and receipt.aspect != "mean"
    return ["mean", receipt.aspect] if decided else ["mean"]


def seen_words(seen: Seen) -> str:
    """Such as ``+0.021 [+0.005, +0.037]``."""
    return f"{signed(seen.gain)} [{signed(seen.low)}, {signed(seen.high)}]"


def _receipt_table(merge: MergeRecord) -> str:
    rows = []
    for r in merge.receipts:
        change = r.without.change if r.without else None
        differs = "n/a" if change is None else f"{change:.1%}"
        sent = [f"{r.share:.1%}", differs, size(r.adapter_bytes)]
        rows.append([r.site, number(r.used_weight, 2), *sent, r.reason])
    return _markdown_table(["site", "weight", "share", "step without it differs by", "sent", "why"], rows)


def _seen_table(merge: MergeRecord) -> str:
    raters = raters_of(merge)
    if len(raters) > COLUMNS:
        seen = [[r.site, ", ".join(f"{s}: {_seen_cell(r, s)}" for s in r.seen)] for r in merge.receipts]
        return _markdown_table(["update of", "seen by"], seen)
    rows = [[r.site, *(_seen_cell(r, rater) for rater in raters)] for r in merge.receipts]
    return _markdown_table(["update of", *(f"seen by {rater}" for rater in raters)], rows)


def _seen_cell(receipt: Receipt, rater: str) -> str:
    found = receipt.seen.get(rater, {})
    shown = [(aspect, found[aspect]) for aspect in shown_aspects(receipt) if aspect in found]
    return "; ".join(seen_words(s) if a == "mean" else f"{a} {seen_words(s)}" for a, s in shown) or "–"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"dice": dice, "signed": signed, "number": number, "size": size, "day": _day, "change": _change}
    environment.filters.update(filters)
    environment.globals.update(
        columns=COLUMNS, raters_of=raters_of, shown_aspects=shown_aspects, seen_words=seen_words
    )
    return environment


def _of_rounds(history: Sequence[RoundHistory]) -> dict[str, Any]:
    plan = next((entry.plan for entry in reversed(history) if entry.plan), None)
    close = next((entry.close for entry in reversed(history) if entry.close), None)
    return {
        "history": history,
        "sites": sites_of(history),
        "last": _last(history),
        "merged_last": next((entry for entry in reversed(history) if entry.merge), None),
        "statuses": {entry.number: round_status(entry) for entry in history},
        "traffic": traffic(history),
        "full_bytes": full_bytes(history),
        "curves": _data_uri(plots.learning_curves(history)) if history else "",
        "weights": _data_uri(plots.weights_and_gains(history)) if any(e.merge for e in history) else "",
        "sent": _data_uri(plots.bytes_sent(history)) if any(e.updates for e in history) else "",
        "plan": plan,
        "steps": close.steps if close else (),
        "model": model_sha256(plan.base, close.steps) if plan and close else "",
        "settings": list(_flat(plan.params.model_dump(mode="json"))) if plan else [],
        "notes": [
            f"{site}, round {entry.number}: {', '.join(update.notes)}"
            for entry in history
            for site, update in sorted(entry.updates.items())
            if update.notes
        ],
        "code_versions": sorted({u.code_version for entry in history for u in entry.updates.values()}),
    }


def _of_cases(cases: pd.DataFrame | None, history: Sequence[RoundHistory]) -> dict[str, Any]:
    found: dict[str, Any] = {"sentences": result_sentences(cases, history)}
    if cases is None:
        return found | {"models": [], "gains": [], "matrix": ""}
    gains = gain_table(cases).reset_index().to_dict("records")
    return found | {"models": _model_rows(cases, history), "gains": gains, "matrix": _matrix(cases)}


def _model_rows(cases: pd.DataFrame, history: Sequence[RoundHistory]) -> list[ModelRow]:
    seed = seed_of(history)
    rows = []
    for model, means in means_of_models(cases).items():
        own = compare(cases, model, "zero-shot", "in", seed) if model != "zero-shot" else None
        others = compare(cases, model, "zero-shot", "cross", seed) if model != "zero-shot" else None
        rows.append(ModelRow(MODEL_WORDS.get(model, model), means, own, others))
    return rows


def _matrix(cases: pd.DataFrame) -> str:
    shown = site_matrices(cases)
    return _data_uri(plots.site_heatmap(shown)) if shown else ""


def _overlays(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Site → (rank, data URI) of the pictures that exist."""
    found = {}
    for folder in sorted((root / "evaluation" / "overlays").glob("*")):
        files = [(rank, folder / f"{rank}.png") for rank in RANKS]
        pictures = [(rank, _data_uri(path.read_bytes())) for rank, path in files if path.is_file()]
        if pictures:
            found[folder.name] = pictures
    return found


def _last(history: Sequence[RoundHistory]) -> datetime | None:
    """When the last round closed, or opened if it is still running."""
    for entry in reversed(history):
        if entry.close:
            return entry.close.closed
        if entry.plan:
            return entry.plan.opened
    return None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _change(value: float, decimals: int) -> str:
    """A number with its sign; "n/a" when undefined."""
    return f"{value:+.{decimals}f}".replace("-", "−") if math.isfinite(value) else "n/a"


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    flat = " ".join(escape(text).split())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("[", "\\[").replace("`", "\\`")
