"""Small cells: a count or an aggregate of a few patients says something of each, so others do not get to see it."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.cases import SiteCard

TRAIN = "train"
RANGE_DIGITS = 2
"""Decimals of a range in mm: its ends belong to single patients."""


def kept_cells(counts: Mapping[str, int], fewest: int) -> dict[str, int]:
    """The cells of a table of patients that others may see.

    What is left out follows from the total as a sum; so the smallest of the others goes with it, until that sum is of
    enough patients.

    Args:
        counts: patients by cell.
        fewest: patients a cell must have; an empty cell is nobody's and stays.

    Returns:
        The cells that may be seen, with their counts.
    """
    kept = {cell: n for cell, n in counts.items() if not 0 < n < fewest}
    while 0 < sum(counts.values()) - sum(kept.values()) < fewest and any(kept.values()):
        del kept[min((cell for cell in kept if kept[cell]), key=lambda cell: (kept[cell], cell))]
    return kept


def shareable(card: SiteCard, fewest: int) -> SiteCard:
    """A site's card as it may leave the site.

    Args:
        card: as it stands in the site's own folder.
        fewest: patients a cell must have.

    Returns:
        The card without small cells, each named in ``suppressed``. The number of training slices stays, since it
        weighs the site's update; ranges are rounded, and left out where the whole site is a small cell.
    """
    patients, groups = kept_cells(card.patients, fewest), kept_cells(card.groups, fewest)
    slices = {side: n for side, n in card.slices.items() if side in patients or side == TRAIN}
    everyone = sum(card.patients.values())
    small, vendors = everyone < fewest, kept_cells(card.vendors, fewest)
    phases, labels = (_sure(counts, everyone, fewest) for counts in (card.phases, card.labels))
    left_out = [
        *(f"patients.{cell}" for cell in card.patients if cell not in patients),
        *(f"slices.{cell}" for cell in card.slices if cell not in slices),
        *(f"groups.{cell}" for cell in card.groups if cell not in groups),
        *(f"vendors.{cell}" for cell in card.vendors if cell not in vendors),
        *(f"phases.{cell}" for cell in card.phases if cell not in phases),
        *(f"labels.{cell}" for cell in card.labels if cell not in labels),
        *(["spacing", "intensity"] if small else []),
    ]
    changes = {
        "patients": patients,
        "slices": slices,
        "groups": groups,
        "vendors": vendors,
        "phases": phases,
        "labels": labels,
        "suppressed": tuple(left_out),
        "spacing_median_mm": None if small else _rounded(card.spacing_median_mm),
        "intensity": None if small else card.intensity,
        "spacing_min_mm": None if small else _rounded(card.spacing_min_mm),
        "spacing_max_mm": None if small else _rounded(card.spacing_max_mm),
    }
    return card.model_copy(update=changes)


def _sure(counts: Mapping[str, int], everyone: int, fewest: int) -> dict[str, int]:
    """Cells of which neither the patients counted nor those left are few."""
    return {cell: n for cell, n in counts.items() if n >= fewest and not 0 < everyone - n < fewest}


def _rounded(spacing_mm: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return None if spacing_mm is None else tuple(round(mm, RANGE_DIGITS) for mm in spacing_mm)
