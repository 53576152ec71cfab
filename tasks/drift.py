"""Before training: has the site's data changed since it last trained, and is a case unlike all its others?

Warnings only: a new scanner is no fault. They stand in the site's own log and file, with pseudonyms; the update's
passport tells the kinds alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from model.split import TEST
from tasks.cases import CaseRow, SiteCard, read_cases
from tasks.enrol import read_card
from tasks.events import log_event
from tasks.files import json_bytes, write_atomic
from tasks.records import Note
from tasks.slices import PHASES, load_slices

SPACING_CHANGE, INTENSITY_CHANGE, VENDOR_CHANGE = 0.1, 0.1, 0.25
"""By how much the median spacing (fraction), the median intensity (fraction of a volume's range) and a vendor's share
of the patients may move between two trainings."""
FAR_SPACING, FAR_MEANS, FEWEST_CASES = 1.5, 6.0, 8
"""A case lies out of range when its spacing differs from the site's median by this factor, or its heart's mean
intensity by so many median deviations; judged on sites with so many cases."""
CARDS, WARNINGS = "cards", "data-warnings.json"


def check_data(data_home: Path, site_home: Path, number: int) -> tuple[Note, ...]:
    """Compare the site's data with what it last trained on, and every case with the others.

    Args:
        data_home: the site's prepared data.
        site_home: the site's own folder; card and warnings are kept there.
        number: of the round.

    Returns:
        What was found, without names or values, sorted.

    Raises:
        DataError: card, table or slices cannot be read.
    """
    card = read_card(data_home)
    moved = drifted(_last_card(site_home / CARDS, number), card)
    far = far_cases(data_home)
    write_atomic(site_home / CARDS / f"{number:04d}.json", card.model_dump_json().encode())
    if not moved and not far:
        return ()
    write_atomic(site_home / WARNINGS, json_bytes({"round": number, "changed": moved, "cases": far}))
    log_event(site_home, "data", number, "warned", changes=len(moved), cases=len(far))
    case: list[Note] = ["case"] if far else []
    return tuple(sorted({*moved, *case}))


def drifted(before: SiteCard | None, now: SiteCard) -> list[Note]:
    """Name what changed between two cards of one site beyond what a few new patients do.

    Args:
        before: of the last training; None for the first, which cannot drift.
        now: of the data as it is.

    Returns:
        Some of ``spacing``, ``intensity``, ``vendor`` and ``labels``.
    """
    if before is None or before.dataset_md5 == now.dataset_md5:
        return []
    found: list[Note] = []
    if before.spacing_median_mm and now.spacing_median_mm:
        ratio = np.divide(now.spacing_median_mm, before.spacing_median_mm)
        if (np.abs(np.log(ratio)) > np.log1p(SPACING_CHANGE)).any():
            found.append("spacing")
    if before.intensity and now.intensity and abs(now.intensity - before.intensity) > INTENSITY_CHANGE:
        found.append("intensity")
    shares = [_shares(card.vendors) for card in (before, now)]
    moved = [abs(shares[0].get(name, 0) - shares[1].get(name, 0)) for name in {*shares[0], *shares[1]}]
    if max(moved, default=0) > VENDOR_CHANGE:
        found.append("vendor")
    if {*before.labels} != {*now.labels}:
        found.append("labels")
    return found


def far_cases(data_home: Path) -> dict[str, list[str]]:
    """Cases of training and validation that are unlike the site's others.

    Args:
        data_home: the site's prepared data.

    Returns:
        Pseudonym and phase → ``spacing`` and ``intensity``; empty on a site of a few cases.
    """
    rows = [row for row in read_cases(data_home) if row.split != TEST]
    if len(rows) < FEWEST_CASES:
        return {}
    means = _heart_means(data_home)
    spacing = np.median([row.spacing_mm for row in rows], axis=0)
    middle = float(np.median(list(means.values()))) if means else 0.0
    deviation = max(float(np.median([abs(mean - middle) for mean in means.values()])), 0.05) if means else 1.0
    found: dict[str, list[str]] = {}
    for row in rows:
        said = ["spacing"] if (np.abs(np.log(row.spacing_mm / spacing)) > np.log(FAR_SPACING)).any() else []
        mean = means.get(_name(row), middle)
        said += ["intensity"] if abs(mean - middle) > FAR_MEANS * deviation else []
        if said:
            found[_name(row)] = said
    return found


def _heart_means(data_home: Path) -> dict[str, float]:
    """Mean of the normalised image in the heart's square, by case."""
    means = {}
    for side in ("train", "validation"):
        slices = load_slices(data_home, side)
        for patient, phase in {*zip(slices.patient.tolist(), slices.phase.tolist(), strict=True)}:
            chosen = (slices.patient == patient) & (slices.phase == phase)
            means[f"p{patient:03d} {PHASES[phase]}"] = float(slices.images[chosen].mean())
    return means


def _name(row: CaseRow) -> str:
    return f"{row.patient} {row.phase}"


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: n / total for name, n in counts.items()} if total else {}


def _last_card(folder: Path, number: int) -> SiteCard | None:
    """The card of the last training before a round; None when there is none that can be read."""
    earlier = [path for path in sorted(folder.glob("[0-9]*.json")) if int(path.stem) < number]
    try:
        return SiteCard.model_validate_json(earlier[-1].read_bytes()) if earlier else None
    except (OSError, ValidationError):
        return None
