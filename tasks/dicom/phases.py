"""Order the images of each slice in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from model.errors import PhaseError
from tasks.dicom.header import EXPORT_AGAIN, Header

Key = Callable[[Header], float | None]
KEYS: tuple[Key, ...] = (
    lambda one: one.trigger_ms,
    lambda one: one.temporal,
    lambda one: one.instance if one.frame is None else None,
)
"""Trigger time; else the temporal position; else the order of acquisition."""


def order_phases(slices: Sequence[Sequence[Header]], where: str) -> list[list[Header]]:
    """Sort each slice by the first key that is complete and unique in all slices.

    Args:
        slices: the images of each place, in any order.
        where: the folder, for errors.

    Returns:
        The same, each place in order of time.

    Raises:
        PhaseError: slices with different numbers of phases, a single phase, repeated acquisitions, or no usable key.
    """
    counts = [len(place) for place in slices]
    if len(set(counts)) != 1:
        said = f"slices have different numbers of phases: {counts}"
        raise PhaseError(said, where, "export every image once; remove repeated acquisitions")
    if counts[0] < 2:
        raise PhaseError("one image per slice: not a cine", where, "give the cine series")
    if times := _repeated([[one.trigger_ms for one in place] for place in slices]):
        said = f"every trigger time stands {times} times: repeated acquisitions in one series"
        raise PhaseError(said, where, "leave one acquisition in the folder")
    for key in KEYS:
        if all(_usable([key(one) for one in place]) for place in slices):
            return [sorted(place, key=lambda one, by=key: by(one) or 0.0) for place in slices]  # type: ignore[misc]
    said = "trigger times, temporal positions and instance numbers are missing or not unique"
    raise PhaseError(said, where, EXPORT_AGAIN)


def trigger_table(slices: Sequence[Sequence[Header]]) -> NDArray[np.float64]:
    """Lay out trigger times.

    Args:
        slices: images per slice in order of time.

    Returns:
        ``(T, Z)`` float64 in ms; all NaN when they are missing or did not give the order.
    """
    rows = [[np.nan if one.trigger_ms is None else one.trigger_ms for one in place] for place in slices]
    table = np.array(rows, np.float64).T
    return table if bool((np.diff(table, axis=0) > 0).all()) else np.full_like(table, np.nan)


def _repeated(slices: Sequence[Sequence[float | None]]) -> int:
    """How often each of several trigger times stands, if equally often and more than once in every slice; else 0."""
    counts = [Counter(place) for place in slices]
    times = {n for count in counts for n in count.values()}
    cycle = all(len(count) > 1 and None not in count for count in counts)
    return times.pop() if cycle and len(times) == 1 and times != {1} else 0


def _usable(values: list[float | None]) -> bool:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return len(known) == len(values) == len(set(known))
