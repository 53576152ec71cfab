"""What a folder holds, one row per series: taken, or why not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.errors import DataError
from tasks.dicom.choose import arrange, stacks
from tasks.dicom.folder import find_series


@dataclass(frozen=True)
class Row:
    """One series as the table shows it."""

    description: str
    modality: str
    images: int
    slices: int
    phases: int
    said: str


def inspect(folder: Path) -> list[Row]:
    """Look at every series below ``folder``; pixels are not read.

    Args:
        folder: searched at any depth.

    Returns:
        A row per series: what it is, and whether it would be taken or why not.

    Raises:
        UnreadableError: no DICOM there, or a file that cannot be opened.
    """
    whole, verdicts = stacks(find_series(folder))
    said: dict[str, str] = {}
    for stack in whole:
        try:
            arrange(stack, str(folder))
            word = "taken" if len(whole) == 1 else f"one of {len(whole)} short-axis stacks: leave one"
        except DataError as fault:
            word = fault.what
        said.update({one.series_uid: word for one in stack})
    return [
        Row(
            one.series.description,
            one.series.modality,
            len(one.series.headers),
            one.slices,
            one.phases,
            one.why_not or said[one.series.uid],
        )
        for one in verdicts
    ]
