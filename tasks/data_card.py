"""What a site's data looks like in numbers, for the site itself and for the whole federation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.cases import CaseRow, SiteCard


def middle_intensity(volume: NDArray[Any]) -> float:
    """Where a volume's middle voxel lies between its 1st and 99th percentile, 0 to 1; no scanner's unit matters."""
    low, middle, high = np.percentile(volume, (1, 50, 99))
    return float((middle - low) / (high - low))


def card_numbers(rows: Sequence[CaseRow], intensities: Sequence[float]) -> dict[str, Any]:
    """The card's numbers beyond patients, slices and groups.

    Args:
        rows: of the case table, all sides.
        intensities: :func:`middle_intensity` of every case.

    Returns:
        Values by name of the card's field.
    """
    spacing = np.median([row.spacing_mm for row in rows], axis=0)
    labels = Counter(f"{row.phase} {name}" for row in rows for name in row.labels.split())
    return {
        "phases": dict(sorted(Counter(row.phase for row in rows).items())),
        "vendors": dict(sorted(Counter({row.patient: row.vendor for row in rows}.values()).items())),
        "labels": dict(sorted(labels.items())),
        "spacing_median_mm": tuple(round(float(step), 3) for step in spacing),
        "intensity": round(median(intensities), 3),
    }


def federation_card(cards: Sequence[SiteCard]) -> dict[str, dict[str, int]]:
    """The federation's counts: those of all sites' cards together.

    Args:
        cards: of the sites, as whoever asks may see them.

    Returns:
        Table (``patients``, ``slices``, ``groups``, ``phases``, ``vendors``, ``labels``) → cell → count.
    """
    tables = ("patients", "slices", "groups", "phases", "vendors", "labels")
    return {name: dict(sum((Counter(getattr(card, name)) for card in cards), Counter())) for name in tables}
